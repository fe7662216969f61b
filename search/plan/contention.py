"""Busy workers: processes that train while one worker is measured, since they compete for cores, caches and GPUs."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

# Imported because a real worker loads it as well: the time to start includes it.
from search.launch import join_search as join_search
from search.trial import TrialConfig
from search.worker import ProbeConfig, measure_probe

READY = "ready"


@contextmanager
def busy_workers(
    config: TrialConfig, out: Path, device: torch.device, devices: Sequence[torch.device]
) -> Iterator[float]:
    """Context in which a process on each of `devices` trains `config`; yields the seconds until all had started.

    Each has as many threads as this process. Without `devices`, one process is started on `device` and ended at once,
    to measure the time to start.
    """
    started = time.monotonic()
    others = [_start(config, out, place) for place in devices or [device]]
    try:
        for other in others:
            assert other.stdout is not None
            for line in other.stdout:  # no line comes if it has crashed
                if line.strip() == READY:
                    break
        seconds = time.monotonic() - started
        if not devices:
            _end(others)
        yield seconds
    finally:
        _end(others)


def _start(config: TrialConfig, out: Path, device: torch.device) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "search.plan.contention"],
        stdin=subprocess.PIPE,  # closes when this process ends: then the worker stops
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    what = {"config": config.model_dump(mode="json"), "out": str(out.resolve()), "device": str(device)}
    print(json.dumps({**what, "threads": torch.get_num_threads()}), file=process.stdin, flush=True)
    return process


def _end(processes: "Sequence[subprocess.Popen[str]]") -> None:
    for process in processes:
        process.kill()
        with process:  # closes its pipes, and waits
            pass


def main() -> None:
    """Load what a worker loads, then train until the parent process ends."""
    wanted = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(wanted["threads"])
    probe = ProbeConfig(TrialConfig.model_validate(wanted["config"]))
    split = probe.config.data.open(seed=0, cache=Path(wanted["out"]))
    device = torch.device(wanted["device"])
    torch.zeros(1, device=device)  # initialises a GPU
    print(READY, flush=True)
    while True:
        measure_probe(probe, split, device)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
