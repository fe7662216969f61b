"""How one `run` is carried out."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class RunOptions:
    """Where a search keeps things, and what it computes on; none of it changes what a trial computes."""

    storage: str
    out: Path
    device: torch.device
    memory: int | None = None
    """Bytes that this process may hold: batches that need more go in parts."""
    quiet: bool = False
    continue_with_changes: bool = False
    warm_start: str | None = None
    """A study of the same database to carry on from."""
    typed: str = ""
    """The command that started it, for whoever wants to repeat it."""
    index: int = 0
    workers: int = 1
    """Which of how many workers this process is: they divide what is not claimed trial by trial."""
