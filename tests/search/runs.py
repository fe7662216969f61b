"""A whole search of a tiny study, here or in a process of its own: signals on the way, and what its trials scored."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from search.database import default_storage_url
from search.launch import SearchOutcome, run_in_process
from search.study import load_spec
from search.worker import RunOptions
from search.worker.callback import TrialCallback

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
# Parts of a study file: dense-sparse-dense training; no setting open.
DSD = '[recipe.sparsity]\nkind = "dsd"\ndense_share = 0.5\nsparse_share = 0.25'
FIXED = ("{ choices = [4, 6] }", "4"), ("lr = { low = 1e-3, high = 1e-2, log = true }", "lr = 5e-3")


def search(path: Path, out: Path, **changes: Any) -> SearchOutcome:
    spec = load_spec(str(path)).with_changes(**changes)
    return run_in_process(spec, RunOptions(storage=default_storage_url(out), out=out, device=CPU, quiet=True))


def scores(trial: FrozenTrial) -> list[tuple[float, ...]]:
    """The rungs of a trial without their times."""
    return [(r["step"], r["psnr_db"], r["ssim"], r["mae"]) for r in json.loads(trial.user_attrs["rungs"])]


def signal_at(
    monkeypatch: pytest.MonkeyPatch, step: int, times: int = 1, number: signal.Signals = signal.SIGINT
) -> None:
    """Ctrl-C (or signal `number`), `times` times, when a trial has done `step` steps."""
    stepped = TrialCallback.stepped

    def interrupted(self: Any, done: int, steps: int, loss: Tensor) -> None:
        stepped(self, done, steps, loss)
        if done == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(TrialCallback, "stepped", interrupted)


@contextmanager
def started(path: Path, out: Path, *flags: str) -> "Iterator[subprocess.Popen[str]]":
    """The command line in a process of its own; killed if the test leaves it alive."""
    command = [sys.executable, "-m", "search", "run", "--study", str(path), "--out", str(out), *flags]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(truth: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_work(out: Path, number: int) -> bool:
    """Whether a trial has saved a state."""
    return (out / "tiny" / f"trial-{number:04d}" / "state.pt").exists()
