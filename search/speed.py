"""How fast this machine trains: seconds per step, measured on a few steps."""

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from data import Split
from search.trial.config import TrialConfig
from search.trial.evaluate import Score
from search.trial.train import train

WARM_STEPS, TIMED_STEPS = 2, 6


class Timer:
    """Watches a run, and notes when each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None: ...
    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        float(loss)  # the step counts once the device has done it
        self.times.append(time.monotonic())

    def scored(self, score: Score, settled: bool) -> None: ...
    def rescued(self, note: str) -> None: ...
    def stop_requested(self) -> bool:
        return False


def seconds_per_step(config: TrialConfig, split: Split, device: torch.device) -> float:
    """The mean of a few steps after a warm-up. Raises what training raises."""
    short = {
        "steps": WARM_STEPS + TIMED_STEPS,
        "evaluations": 1,
        "pauses": (),
        "rung_megapixels": 1e-3,
        "val_megapixels": 1e-3,
    }
    timer = Timer()
    with tempfile.TemporaryDirectory() as folder:
        probe = type(config).model_validate({**config.model_dump(), **short})
        train(probe, split, device, Path(folder), timer)
    return (timer.times[-1] - timer.times[WARM_STEPS - 1]) / TIMED_STEPS
