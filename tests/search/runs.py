"""A whole search of a tiny study, Ctrl-C in the middle of it, and what its trials scored."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from search import storage, study, watch
from search.run import Outcome, run
from search.worker import Options

CPU = torch.device("cpu")


def search(path: Path, out: Path, **changes: Any) -> Outcome:
    spec = study.load(str(path)).with_changes(**changes)
    return run(spec, Options(storage=storage.default_url(out), out=out, device=CPU, quiet=True))


def scores(trial: FrozenTrial) -> list[tuple[float, ...]]:
    """The rungs of a trial without their times."""
    return [(r["step"], r["psnr_db"], r["ssim"], r["mae"]) for r in json.loads(trial.user_attrs["rungs"])]


def signal_at(
    monkeypatch: pytest.MonkeyPatch, step: int, times: int = 1, number: signal.Signals = signal.SIGINT
) -> None:
    """Ctrl-C (or signal `number`), `times` times, when a trial has done `step` steps."""
    stepped = watch.Watch.stepped

    def interrupted(self: Any, done: int, steps: int, loss: Tensor) -> None:
        stepped(self, done, steps, loss)
        if done == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(watch.Watch, "stepped", interrupted)
