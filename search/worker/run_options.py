"""Options of one `run`."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class RunOptions:
    """Storage, folder and device of a run. None of these options changes the result of a trial."""

    storage: str
    out: Path
    device: torch.device
    memory: int | None = None
    """Memory limit of this process in bytes: batches that need more are divided."""
    quiet: bool = False
    continue_with_changes: bool = False
    warm_start: str | None = None
    """Study of the same database whose results are the starting point."""
    command: str = ""
    """The command line that started the run, recorded so that it can be repeated."""
    index: int = 0
    workers: int = 1
    """Index of this worker and number of workers: repeats are divided among them by index."""
