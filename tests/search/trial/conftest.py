"""A training run in a few lines: tiny configs, and a report that remembers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.sources import Split
from search.inference import Score
from search.trial import TrialConfig, train
from search.trial.training import TrialResult

CPU = torch.device("cpu")


class Record:
    """A report that keeps what it is told, asks to stop after `stop_after` steps and raises `error` at a score."""

    def __init__(self, stop_after: int | None = None, error: Exception | None = None) -> None:
        self.stop_after, self.error = stop_after, error
        self.begun_at: int | None = None
        self.rungs_before: list[Score] = []
        self.losses: list[float] = []
        self.scores: list[Score] = []
        self.dense: list[bool] = []
        self.notes: list[str] = []

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        self.begun_at, self.rungs_before = step, list(rungs)

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        self.losses.append(float(loss))

    def scored(self, score: Score, dense: bool) -> None:
        self.scores.append(score)
        self.dense.append(dense)
        if self.error:
            raise self.error

    def rescued(self, note: str) -> None:
        self.notes.append(note)

    def stop_requested(self) -> bool:
        return self.stop_after is not None and len(self.losses) >= self.stop_after


@pytest.fixture
def record() -> type[Record]:
    return Record


@pytest.fixture
def config(pairs_folder: Path) -> Callable[..., TrialConfig]:
    """A trial config of a few small steps, with other settings on top."""

    def make(**changes: Any) -> TrialConfig:
        tree = {
            "model": {"kind": "dncnn", "channels": 1, "width": 4, "layers": 4},
            "data": {"kind": "pairs", "dir": str(pairs_folder)},
            "steps": 10,
            "crops": {"batch": 2, "patch": 8},
            "optimizer": {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.1},
            "evaluations": 5,
            "precision": "fp32",
            "ema_decay": 0.8,
        }
        return TrialConfig.model_validate({**tree, **changes})

    return make


@pytest.fixture
def run(split: Split) -> Callable[..., TrialResult]:
    """Train a config in a folder, watched by a report."""

    def start(config: TrialConfig, folder: Path, report: Record | None = None) -> TrialResult:
        return train(config, split, CPU, folder, report or Record())

    return start
