"""Databases made by runs, opened again to see what is in them; a browser to look at pages."""

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from search.__main__ import main
from search.database import default_storage_url, load_study
from search.launch import run_in_process
from tests.conftest import write_pairs
from tests.search.chromium import Browser, browser


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trials(out: Path) -> Callable[..., list[optuna.trial.FrozenTrial]]:
    """The trials of a study as the database has them."""

    def read(name: str = "tiny") -> list[optuna.trial.FrozenTrial]:
        return load_study(name, default_storage_url(out)).get_trials(deepcopy=False)

    return read


NASTY = "by <b>hand</b> | =1+1 `x`"
EXPLORED = """
name = "tiny"
trials = 3
timeout = "10m"
ladder = {{ rungs = 0 }}

[recipe]
steps = 8
evaluations = 4
precision = {{ choices = ["fp32", "auto"] }}
ema_decay = 0.5
crops = {{ batch = 2, patch = 8 }}
model = {{ kind = "dncnn", layers = 3, width = {{ choices = [4, 6] }} }}

[recipe.optimizer]
kind = "adamw"
lr = {{ low = 1e-3, high = 1e-2, log = true }}

[recipe.data]
kind = "pairs"
dir = "{data}"

[[first]]
name = "{name}"
precision = "fp32"
"model.width" = 4
"optimizer.lr" = 2e-3
"""
FILTERS = """
name = "filters"
trials = 3
timeout = "10m"
ladder = {{ rungs = 0 }}

[recipe]
steps = 0
model = {{ kind = "classical", filter = {{ kind = "median", side = {{ low = 3, high = 7, step = 2 }} }} }}

[recipe.data]
kind = "pairs"
dir = "{data}"
"""


@pytest.fixture(scope="session", autouse=True)
def in_this_process() -> Iterator[None]:
    """`run` works in the process of the tests: its workers have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "search.launch.run_with_workers", lambda spec, options, devices: run_in_process(spec, options)
        )
        yield


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory, in_this_process: None) -> Path:
    """A runs folder with two finished studies on the same pairs, `tiny` of networks and `filters`. Read only."""
    folder = tmp_path_factory.mktemp("explored")
    write_pairs(folder / "data" / "train", [f"page-{n}" for n in range(4)], seed=1)
    write_pairs(folder / "data" / "val", [f"page-{n}" for n in range(4, 11)], seed=2)
    for name, text in (("tiny", EXPLORED), ("filters", FILTERS)):
        path = folder / f"{name}.toml"
        path.write_text(text.format(data=folder / "data", name=NASTY), encoding="utf-8")
        assert main(["run", "--study", str(path), "--out", str(folder / "runs"), "--quiet"]) == 0
    return folder / "runs"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser; the test is skipped where none is installed."""
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found
