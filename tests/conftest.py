"""Tiny real folders of pairs, and a study small enough to run in a second."""

import contextlib
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.files import write_png
from data.sources import PairsConfig, Split

# Threads that wait for each other on a busy machine make tiny images a hundred times slower.
torch.set_num_threads(1)
# A shell that starts tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

HEIGHT, WIDTH = 17, 23  # real images are not powers of two either

TINY_STUDY = """
name = "tiny"
trials = 2
timeout = "10m"
ladder = { rungs = 0 }

[recipe]
steps = 8
evaluations = 4
precision = "fp32"
ema_decay = 0.5
crops = { batch = 2, patch = 8 }

[recipe.model]
kind = "dncnn"
layers = 3
width = { choices = [4, 6] }

[recipe.optimizer]
kind = "adamw"
lr = { low = 1e-3, high = 1e-2, log = true }
"""


def write_pairs(folder: Path, names: list[str], seed: int, channels: int = 1) -> None:
    """Smooth clean images, and scans of them that are darker and noisy: a model can learn to undo that."""
    rng = np.random.default_rng(seed)
    for side in ("scan", "clean"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for name in names:
        phase = rng.uniform(0, 6, (1, 1, channels))
        y, x = np.mgrid[:HEIGHT, :WIDTH, :1][:2]
        clean = 150 + 60 * np.sin(y / 4 + phase) * np.cos(x / 5 - phase)
        scan = 0.7 * clean + rng.normal(0, 8, clean.shape)
        write_png(folder / "clean" / f"{name}.png", clean.round().clip(0, 255).astype(np.uint8))
        write_png(folder / "scan" / f"{name}.png", scan.round().clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR/{train,val}/{scan,clean} with 5 and 3 gray pairs of 17 by 23 pixels. Read only."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "train", [f"page-{n}" for n in range(5)], seed=1)
    write_pairs(folder / "val", [f"page-{n}" for n in range(5, 8)], seed=2)
    return folder


@pytest.fixture(scope="session")
def split(pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The same pairs, opened."""
    return PairsConfig(dir=pairs_folder).open(seed=0, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def study_file(tmp_path: Path, pairs_folder: Path) -> Callable[..., Path]:
    """Writes the tiny study, with texts replaced and lines added, and gives its path."""

    def write(*replacements: tuple[str, str], more: str = "", name: str = "tiny") -> Path:
        text = TINY_STUDY.replace('name = "tiny"', f'name = "{name}"')
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the tiny study"
            text = text.replace(old, new)
        path = tmp_path / f"{name}.toml"
        path.write_text(f'{text}\n[recipe.data]\nkind = "pairs"\ndir = "{pairs_folder}"\n{more}\n', "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def spandrel() -> Iterator[Any]:
    """The library other tools load restoration models with; the test is skipped where it is missing.

    It imports torchvision, which wants operators that its CPU build may lack; they are never called.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("spandrel", reason="interchange is not tested", exc_type=ImportError)
    yield module
    del library
