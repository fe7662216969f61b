"""Training speed on this machine: seconds per step and memory, measured on a few steps."""

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.sources import Split
from search.inference import Score, peak_memory_growth
from search.trial.config import TrialConfig
from search.trial.training import Stopped, train

WARM_STEPS, TIMED_STEPS = 2, 6
PATIENCE = 1.0  # seconds after which no further step is timed


class Timer:
    """Callbacks that time each step, and stop the run when a few are timed and `patience` seconds are over."""

    def __init__(self, patience: float = float("inf")) -> None:
        self.patience = patience
        self.made = self.start = time.monotonic()
        self.times: list[float] = []
        self.notes: list[str] = []

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        self.start = time.monotonic()

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        float(loss)  # the step counts once the device has done it
        self.times.append(time.monotonic())

    def scored(self, score: Score, dense: bool) -> None: ...

    def rescued(self, note: str) -> None:
        self.notes.append(note)

    def stop_requested(self) -> bool:
        return len(self.times) > self.warm and self.times[-1] - self.times[self.warm - 1] > self.patience

    @property
    def warm(self) -> int:
        """Steps that count as warm-up: one is enough if it takes long."""
        slow = bool(self.times) and self.times[0] - self.start > self.patience
        return 1 if slow else WARM_STEPS

    def seconds_per_step(self) -> float:
        """The mean after the warm-up."""
        return (self.times[-1] - self.times[self.warm - 1]) / (len(self.times) - self.warm)


@dataclass(frozen=True)
class Pace:
    """Measured time and memory of training one recipe on this device."""

    seconds_per_step: float
    seconds_to_start: float
    """From the call to the first step: model, crops, and a look at all validation images."""
    peak_bytes: int
    """Memory that training added to what the process held before; on a GPU, of its memory."""
    notes: tuple[str, ...] = ()
    """Notes on recovery: changed settings where the recipe did not fit into memory."""


def measure_pace(config: TrialConfig, split: Split, device: torch.device, patience: float = PATIENCE) -> Pace:
    """Train a few steps after a warm-up, fewer of slow ones. Raises what training raises."""
    short = {
        "steps": WARM_STEPS + TIMED_STEPS,
        "evaluations": 1,
        "pauses": (),
        "rung_megapixels": 1e-3,
        "val_megapixels": 1e-3,
        "initial": None,
    }
    probe = config.as_planned(**short)
    _keep_freed_memory()
    timer = Timer(patience)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Stopped):
            train(probe, split, device, Path(folder), timer)

    grown = peak_memory_growth(run, device)
    return Pace(timer.seconds_per_step(), timer.start - timer.made, grown, tuple(timer.notes))


def _keep_freed_memory() -> None:
    """Make the allocator keep freed memory, as it does in a search from the first validation image on.

    glibc returns memory to the system after every step, and steps take a third longer, until it has once
    been given back a block of nearly 32 MB.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def measure_seconds_per_step(config: TrialConfig, split: Split, device: torch.device) -> float:
    """The mean of a few steps after a warm-up. Raises what training raises."""
    return measure_pace(config, split, device).seconds_per_step
