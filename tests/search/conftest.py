"""A database made by a run, opened again to see what is in it."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from search import storage


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trials(out: Path) -> Callable[..., list[optuna.trial.FrozenTrial]]:
    """The trials of a study as the database has them."""

    def read(name: str = "tiny") -> list[optuna.trial.FrozenTrial]:
        return storage.load_study(name, storage.default_url(out)).get_trials(deepcopy=False)

    return read
