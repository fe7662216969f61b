"""An opened data source: a training and a validation set of pairs, and who is in which."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.files import FULL_WHITE, DataError, Pair
from data.loading import Crop, Vary

T = TypeVar("T")


class PairSet(ABC):
    """Pairs of images of one channel count, in a fixed order, held so that crops of them are cheap."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The file stem: unique in the set."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""

    @abstractmethod
    def whole(self, index: int) -> Pair:
        """The whole pair (C, H, W), unaugmented and the same at every call."""

    @abstractmethod
    def crops(self, crops: Sequence[Crop], patch: int, vary: Vary, key: tuple[int, ...]) -> Pair:
        """These crops as one contiguous batch (B, C, patch, patch), in memory of its own.

        Both sides are cut, turned and varied alike. `key` seeds whatever chance the set itself adds (noise),
        after that.
        """

    def representative(self, megapixels: float) -> list[int]:
        """Positions of images that hold at most so many pixels together, lightly to badly degraded; one at least.

        Scoring all pages of a large set, at every rung, would cost more than training. Ordered by how degraded
        they are and taken at even distances, a few images stand for all; even distances in the order of names
        would follow whatever pattern the names have.
        """
        order, limit = self._by_degradation, megapixels * 1e6
        pixels = np.array([height * width for height, width in map(self.size, order)], np.int64)
        # No larger number of images fits than of the smallest ones.
        for count in range(_fitting(np.sort(pixels), limit), 1, -1):
            places = (2 * np.arange(count) + 1) * len(order) // (2 * count)
            if int(pixels[places].sum()) <= limit:
                return sorted(order[place] for place in places)
        return [order[len(order) // 2]]

    @cached_property
    def _by_degradation(self) -> list[int]:
        """All positions, those with the smallest squared error first. Looks at every image, once."""
        pairs = map(self.whole, range(len(self)))
        errors = [float((pair.degraded - pair.clean).square().mean()) for pair in pairs]
        return sorted(range(len(self)), key=errors.__getitem__)


def _fitting(pixels: NDArray[np.int64], limit: float) -> int:
    """Number of images fit into `limit` pixels together, in this order."""
    return int(np.searchsorted(np.cumsum(pixels), limit, side="right"))


@dataclass(frozen=True, eq=False)
class Split:
    """An opened data source."""

    train: PairSet
    val: PairSet
    channels: int
    """1 (gray) or 3 (RGB), for all images of both sets."""
    fingerprint: str
    """16 hex digits that change with any pixel, name or side of the split, but not with the place on disk."""
    note: str
    """One line for people: how many pairs, of what kind, and where the split comes from."""
    white_level: int = FULL_WHITE
    """The value that 1.0 stands for in 16-bit files: less than 65535 where all hold values of fewer bits."""


def shared_images(pairs: PairSet, split: Split) -> dict[str, str]:
    """The pairs with a side whose pixels are those of a side of a pair in `split`: name -> "train NAME".

    For images of one channel count; the depth of the files does not matter.
    """
    known = {
        digest: f"{part} {images.name(index)}"
        for part, images in (("train", split.train), ("val", split.val))
        for index in range(len(images))
        for digest in _digests(images.whole(index))
    }
    found = {}
    for index in range(len(pairs)):
        twins = [known[digest] for digest in _digests(pairs.whole(index)) if digest in known]
        if twins:
            found[pairs.name(index)] = twins[0]
    return found


def _digests(pair: Pair) -> list[tuple[torch.Size, bytes]]:
    """Digests that tell images by their decoded pixels, for both sides."""
    return [
        (side.shape, hashlib.sha256(side.numpy().tobytes()).digest()) for side in (pair.degraded, pair.clean)
    ]


def divided(
    files: Mapping[str, Mapping[str, T]],
    fraction: float,
    seed: int,
    source: Path,
    cache: Path,
    settings: tuple[object, ...] = (),
) -> tuple[dict[str, T], dict[str, T], str]:
    """The train and the val part of `files` by name, and how they came about, in a few words.

    `files` has them already ("train" and "val") or has one part ("all"), which is then split by `seed`.
    The split is kept in `cache`/data for this source with these settings.
    """
    if "all" not in files:
        return dict(files["train"]), dict(files["val"]), "split as found"
    everything = files["all"]
    place = source.resolve()
    record = cache_folder(cache) / f"split-{place.name}-{place_key(place, fraction, *settings)}.json"
    val = held_out(list(everything), fraction, seed, record, source)
    return (
        {name: file for name, file in everything.items() if name not in val},
        {name: file for name, file in everything.items() if name in val},
        f"split by image, kept in {record}",
    )


def held_out(names: Sequence[str], fraction: float, seed: int, record: Path, source: Path) -> frozenset[str]:
    """The names that belong to validation, drawn by `seed` once and then read back from `record`.

    Names that the record knows keep their side; new ones are dealt out so that the share of validation comes
    as near to `fraction` as it can (at least one image on each side). `source` is only written down
    and named in errors. Raises DataError if there are fewer than two names or the record is damaged.
    """
    if len(names) < 2:
        raise DataError(
            f"{source}: {len(names)} pair, too few to split; at least 2 are needed (1 train, 1 val)"
        )
    sides = _read_record(record)
    known = {side: [name for name in names if sides.get(name) == side] for side in ("train", "val")}
    fresh = [name for name in sorted(names) if name not in sides]
    wanted = min(max(round(fraction * len(names)), 1), len(names) - 1) - len(known["val"])
    order = np.random.default_rng(seed).permutation(len(fresh))
    chosen = {fresh[place] for place in order[: max(wanted, 0)]}
    if not fresh and all(known.values()):
        return frozenset(known["val"])
    dealt = {name: "val" if name in chosen else "train" for name in fresh}
    result = frozenset(name for name in names if {**sides, **dealt}[name] == "val")
    if not 0 < len(result) < len(names):
        # Images were removed until one side ran dry: nothing of the old split is left to respect.
        record.unlink(missing_ok=True)
        return held_out(names, fraction, seed, record, source)
    write_whole(
        record,
        json.dumps(
            {"source": str(source), "seed": seed, "val_fraction": fraction, "sides": {**sides, **dealt}},
            indent=1,
        ),
    )
    return result


def _read_record(record: Path) -> dict[str, str]:
    if not record.exists():
        return {}
    try:
        sides = json.loads(record.read_text("utf-8"))["sides"]
        if not isinstance(sides, dict) or not set(sides.values()) <= {"train", "val"}:
            raise ValueError("sides must map names to train or val")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record}: damaged split record ({error}); delete it to split anew") from error
    return sides


def place_key(*parts: object) -> str:
    """16 hex digits for the name of a cache file that belongs to these things."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def cache_folder(cache: Path) -> Path:
    """`cache`/data, made if need be. Raises DataError if it cannot be."""
    folder = cache / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder with --out"
        ) from error
    return folder


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that no reader ever sees half of it. Raises DataError if that is not possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
