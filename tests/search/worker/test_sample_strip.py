"""Sample strips against the pixels they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.files.images import read_image
from data.sources import Split
from models import DnCNNConfig
from search.inference import to_codes
from search.trial import save_weights
from search.worker import CROP_SIDE, save_strip
from search.worker.sample_strip import ERROR_GAIN, GAP, HEADING_HEIGHT

CPU = torch.device("cpu")


@pytest.fixture
def unchanging(tmp_path: Path) -> tuple[DnCNNConfig, Path]:
    """A model that gives back what it gets, and its weights."""
    config = DnCNNConfig(channels=1, width=4, layers=3)
    model = config.build()
    torch.nn.init.zeros_(model.model[-1].weight)
    save_weights(tmp_path / "weights.safetensors", model)
    return config, tmp_path / "weights.safetensors"


def test_strip_shows_degraded_restored_clean_and_error_side_by_side(
    unchanging: tuple[DnCNNConfig, Path], split: Split, tmp_path: Path
) -> None:
    save_strip(tmp_path / "strip.png", *unchanging, split.val, CPU)
    picture = read_image(tmp_path / "strip.png")

    def cell(row: int, column: int) -> NDArray[np.uint8]:
        top = HEADING_HEIGHT + row * (17 + GAP)
        left = column * (CROP_SIDE + GAP)
        return np.asarray(picture[top : top + 17, left : left + 23])

    for row in range(3):
        pair = split.val.whole(row)
        degraded, clean = to_codes(pair.degraded), to_codes(pair.clean)
        error = (ERROR_GAIN * np.abs(degraded.astype(int) - clean)).clip(0, 255)
        for column, expected in enumerate((degraded, degraded, clean, error)):
            assert (cell(row, column) == expected).all(), (row, column)


def test_strips_of_two_trials_show_the_same_crops(
    unchanging: tuple[DnCNNConfig, Path], split: Split, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        save_strip(tmp_path / f"{name}.png", *unchanging, split.val, CPU)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
