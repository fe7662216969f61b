"""Paths as people write them: `~` stands for their home folder, though no shell has seen it."""

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """The path with `~` or `~user` at its front replaced; as it is where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser fails for an unknown user)
