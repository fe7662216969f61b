"""Small image folders for the data tests."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.files import Pixels

MakePairs = Callable[..., Path]


def noise_image(seed: int, height: int = 17, width: int = 23, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def save(path: Path, pixels: Pixels) -> None:
    """Writes RGB or gray pixels with OpenCV, by the extension of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]))


@pytest.fixture
def make_pairs(tmp_path: Path) -> MakePairs:
    """Fills folder/{scan,clean} with PNG pairs by these names; the scan is the inverse of the clean image."""

    def make(
        *names: str, folder: str = "set", scan: str = "scan", clean: str = "clean", channels: int = 3
    ) -> Path:
        for number, name in enumerate(names):
            image = noise_image(number, channels=channels)
            save(tmp_path / folder / clean / f"{name}.png", image)
            save(tmp_path / folder / scan / f"{name}.png", 255 - image)
        return tmp_path / folder

    return make
