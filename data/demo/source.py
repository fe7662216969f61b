"""The embedded default: photographs and rendered pages made into poor scans, once per runs folder."""

import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from data.demo.assets import shipped_file
from data.demo.pages import render_page
from data.demo.scanner import PAGE, PHOTO, poor_scan
from data.demo.texts import TRAIN_TEXTS, VAL_TEXTS
from data.files import DataError, Pixels, decode_image, with_channels, write_png
from data.sources import PairsConfig, Split, cache_folder

VERSION = 1
"""Part of the folder's name: count it up when the pairs change, so that old ones are not taken for new."""


class Photo(NamedTuple):
    """A photograph that an installed package ships: shrunk by `scale`, then cut into tiles side by side."""

    file: str
    scale: float = 1.0


class Part(NamedTuple):
    """Material of one side of the split: no photograph or passage is in two parts."""

    photos: tuple[Photo, ...]
    passages: tuple[str, ...]
    pages: int


_PHOTO_SIZE = 240, 256  # height, width
_PAGE_SIZE = (224, 336), (272, 384)  # heights, widths: lowest and highest for training
_VAL_PAGE_SIZE = 224, 288

TRAIN = Part(
    photos=(
        Photo("skimage/data/astronaut.png"),
        Photo("skimage/data/camera.png"),
        Photo("skimage/data/motorcycle_left.png"),
        Photo("skimage/data/rocket.jpg"),
        Photo("skimage/data/ihc.png"),
        Photo("skimage/data/retina.jpg", 0.38),
        Photo("skimage/data/coins.png"),
        Photo("matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    ),
    passages=TRAIN_TEXTS,
    pages=30,
)
VAL = Part(
    photos=(Photo("skimage/data/chelsea.png"), Photo("skimage/data/coffee.png")),
    passages=VAL_TEXTS,
    pages=6,
)


class DemoConfig(BaseModel):
    """Small colour pairs for trying things out: worn photographs and pages, and how they were when new."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["demo"] = "demo"

    def open(self, *, seed: int, cache: Path) -> Split:
        """The pairs, first made as PNG folders in `cache`/data/demo-1 if need be. The same for every seed."""
        folder = cache_folder(cache) / f"demo-{VERSION}"
        if not folder.exists():
            temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
            try:
                make_demo(temporary)
                # Only a whole set ever has the final name.
                temporary.rename(folder)
            except OSError as error:
                if not folder.exists():  # else another process was faster
                    raise DataError(f"{folder}: cannot be made ({error.strerror})") from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        split = PairsConfig(dir=folder, channels=3).open(seed=seed, cache=cache)
        return replace(split, note=f"{split.note} in {folder}")


def make_demo(folder: Path) -> None:
    """Writes all pairs as PNG into `folder`/{train,val}/{scan,clean}; the same pixels every time."""
    for name, part in (("train", TRAIN), ("val", VAL)):
        scans, cleans = folder / name / "scan", folder / name / "clean"
        for side in (scans, cleans):
            side.mkdir(parents=True)
        for photo in part.photos:
            for number, tile in enumerate(photo_tiles(photo)):
                stem = f"photo-{Path(photo.file).stem}-{number}"
                write_png(cleans / f"{stem}.png", tile)
                write_png(scans / f"{stem}.png", poor_scan(tile, PHOTO, _generator(name, stem)))
        for number in range(part.pages):
            stem = f"page-{number:02}"
            rng = _generator(name, stem)
            height, width = _VAL_PAGE_SIZE if name == "val" else rng.integers(*np.transpose(_PAGE_SIZE))
            front = render_page(height, width, part.passages, number, rng)
            back = render_page(height, width, part.passages, number + 4, rng) if rng.random() < 0.6 else None
            write_png(cleans / f"{stem}.png", front)
            write_png(scans / f"{stem}.png", poor_scan(front, PAGE, rng, back))


def _generator(*words: str) -> np.random.Generator:
    return np.random.default_rng(list("/".join(words).encode()))


def photo_tiles(photo: Photo) -> list[Pixels]:
    """The pieces of a photograph that become images of the set, (H, W, 3), without overlap."""
    whole = with_channels(decode_image(shipped_file(photo.file)), 3)
    if photo.scale < 1:
        whole = np.asarray(
            cv2.resize(whole, None, fx=photo.scale, fy=photo.scale, interpolation=cv2.INTER_AREA)
        )
    height, width = _PHOTO_SIZE
    tops = tile_positions(whole.shape[0], height)
    lefts = tile_positions(whole.shape[1], width)
    return [np.ascontiguousarray(whole[y : y + height, x : x + width]) for y in tops for x in lefts]


def tile_positions(length: int, tile: int) -> list[int]:
    """First pixels of as many tiles as fit, with equal gaps between and around them."""
    count = length // tile
    gap = (length - count * tile) / (count + 1)
    return [round(gap + i * (tile + gap)) for i in range(count)]
