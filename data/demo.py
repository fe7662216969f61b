"""The embedded default: real photographs made into pairs that look like poor scans, once per runs folder."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import skimage
from pydantic import BaseModel, ConfigDict

from data.images import Pixels, decode, with_channels, write_png
from data.pairs import PairsConfig
from data.split import Split, cache_folder

TRAIN_PHOTOS = ("astronaut.png", "coffee.png", "rocket.jpg", "ihc.png", "motorcycle_left.png")
VAL_PHOTOS = ("chelsea.png", "hubble_deep_field.jpg")
_SIDE = 288


class DemoConfig(BaseModel):
    """Small pairs that need no files of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["demo"] = "demo"

    def open(self, *, seed: int, cache: Path) -> Split:
        """The pairs, first made as PNG folders in `cache`/data/demo-1 if need be. The same for every seed."""
        folder = cache_folder(cache) / "demo-1"
        if not folder.exists():
            temporary = Path(tempfile.mkdtemp(prefix=".demo-", dir=folder.parent))
            make(temporary)
            try:
                temporary.rename(folder)
            except OSError:  # another process was faster
                shutil.rmtree(temporary)
        return PairsConfig(dir=folder, channels=3).open(seed=seed, cache=cache)


def make(folder: Path) -> None:
    """Writes all pairs as PNG into `folder`/{train,val}/{scan,clean}."""
    for part, photos in (("train", TRAIN_PHOTOS), ("val", VAL_PHOTOS)):
        for side in ("scan", "clean"):
            (folder / part / side).mkdir(parents=True)
        for photo in photos:
            whole = with_channels(decode(Path(skimage.__file__).parent / "data" / photo), 3)
            rng = np.random.default_rng(list(photo.encode()))
            for number, top in enumerate(range(0, whole.shape[0] - _SIDE + 1, _SIDE // 2)):
                clean = np.ascontiguousarray(whole[top : top + _SIDE, :_SIDE])
                name = f"{Path(photo).stem}-{number}.png"
                write_png(folder / part / "clean" / name, clean)
                write_png(folder / part / "scan" / name, _scanned(clean, rng))


def _scanned(clean: Pixels, rng: np.random.Generator) -> Pixels:
    height, width, _ = clean.shape
    shade = cv2.resize(rng.uniform(0.6, 1.0, (3, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = cv2.GaussianBlur(clean, (0, 0), 0.7) * shade[..., None] + rng.normal(0, 12, clean.shape)
    return np.asarray(np.rint(noisy.clip(0, 255))).astype(np.uint8)
