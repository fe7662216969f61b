"""An opened data source: a training and a validation set of pairs, and who is in which."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.cropping import Crop, Vary
from data.files import FULL_WHITE, DataError, Pair

T = TypeVar("T")

_OVERFULL = 1.25
"""A whole group may make the validation part so many times as large as wanted."""


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
    remarks: tuple[str, ...] = ()
    """What else people should know about the images, a line each."""
    leaked: frozenset[str] = frozenset()
    """Names of validation images that are in training as well, or nearly, or share a background with it."""


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


Groupings = Callable[[list[str]], list[list[str]]]
"""The group of each name, in several ways, the best first."""


def divided(
    files: Mapping[str, Mapping[str, T]],
    fraction: float,
    seed: int,
    source: Path,
    cache: Path,
    settings: tuple[object, ...] = (),
    group: Groupings = lambda names: [],
    facts: Mapping[str, Any] | None = None,
) -> tuple[dict[str, T], dict[str, T], str]:
    """The train and the val part of `files` by name, and how they came about, in a few words.

    `files` has them already ("train" and "val") or has one part ("all"), which is then split by `seed`.
    The split is kept in `cache`/data for this source with these settings; `facts` are written beside it.
    """
    if "all" not in files:
        return dict(files["train"]), dict(files["val"]), "split as found"
    everything = files["all"]
    place = source.resolve()
    record = cache_folder(cache) / f"split-{place.name}-{place_key(place, fraction, *settings)}.json"
    val = held_out(list(everything), fraction, seed, record, source, group, facts)
    by = "group" if _read(record).get("together") else "image"
    return (
        {name: file for name, file in everything.items() if name not in val},
        {name: file for name, file in everything.items() if name in val},
        f"split by {by}, kept in {record}",
    )


def held_out(
    names: Sequence[str],
    fraction: float,
    seed: int,
    record: Path,
    source: Path,
    group: Groupings = lambda names: [],
    facts: Mapping[str, Any] | None = None,
) -> frozenset[str]:
    """The names that belong to validation, drawn by `seed` once and then read back from `record`.

    Names that the record knows keep their side. New ones go where others of their group are, or are dealt out by
    group so that the share of validation comes near to `fraction` (at least one image on each side). `group` is
    only asked for new names; where it puts all names into one group, the next best grouping counts. `source` and
    `facts` are only written down. Raises DataError if there are fewer than two names or the record is damaged.
    """
    if len(names) < 2:
        raise DataError(
            f"{source}: {len(names)} pair, too few to split; at least 2 are needed (1 train, 1 val)"
        )
    sides = _read_sides(record)
    known = {side: [name for name in names if sides.get(name) == side] for side in ("train", "val")}
    fresh = [name for name in sorted(names) if name not in sides]
    if not fresh and all(known.values()):
        return frozenset(known["val"])
    group_of = _grouped(names, group)
    dealt = _follow(fresh, sides, group_of)
    wanted = min(max(round(fraction * len(names)), 1), len(names) - 1)
    wanted -= sum({**sides, **dealt}.get(name) == "val" for name in names)
    rest = [name for name in fresh if name not in dealt]
    dealt |= _deal(rest, wanted, group_of, seed, has_train=bool(known["train"]), has_val=bool(known["val"]))
    result = frozenset(name for name in names if {**sides, **dealt}[name] == "val")
    if not 0 < len(result) < len(names):
        # Images were removed until one side ran dry: nothing of the old split is left to respect.
        assert sides, "a split made anew has two sides"
        record.unlink(missing_ok=True)
        return held_out(names, fraction, seed, record, source, group, facts)
    together = [members for members in _members(names, group_of).values() if len(members) > 1]
    content = {"source": str(source), "seed": seed, "val_fraction": fraction, **(facts or {})}
    if together:
        content["together"] = together
    write_whole(record, json.dumps({**content, "sides": {**sides, **dealt}}, indent=1))
    return result


def _grouped(names: Sequence[str], group: Groupings) -> dict[str, str]:
    """The best grouping that leaves something to split; else every image is a group."""
    for groups in group(list(names)):
        if len(set(groups)) > 1:
            return dict(zip(names, groups, strict=True))
    return {name: name for name in names}


def _members(names: Sequence[str], group_of: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[group_of[name]].append(name)
    return dict(found)


def _follow(fresh: Sequence[str], sides: Mapping[str, str], group_of: Mapping[str, str]) -> dict[str, str]:
    """The sides of new names whose group has images already: where most of these are."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, side in sides.items():
        if name in group_of:
            counts[group_of[name]][side] += 1
    return {name: counts[group_of[name]].most_common(1)[0][0] for name in fresh if counts[group_of[name]]}


def _deal(
    names: Sequence[str],
    wanted: int,
    group_of: Mapping[str, str],
    seed: int,
    *,
    has_train: bool,
    has_val: bool,
) -> dict[str, str]:
    """Sides of new names, whole groups at a time: about `wanted` for validation, one group at least."""
    groups = list(_members(names, group_of).values())
    most = min(_OVERFULL * wanted, len(names) if has_train else len(names) - 1)
    chosen: list[str] = []
    for place in np.random.default_rng(seed).permutation(len(groups)):
        members = groups[place]
        if len(chosen) < wanted and len(chosen) + len(members) <= most:
            chosen += members
    if not chosen and not has_val and len(groups) > 1:
        chosen = min(groups, key=len)
    return {name: "val" if name in set(chosen) else "train" for name in names}


def _read_sides(record: Path) -> dict[str, str]:
    sides: dict[str, str] = _read(record)["sides"]
    return sides


def _read(record: Path) -> dict[str, Any]:
    if not record.exists():
        return {"sides": {}}
    try:
        found: dict[str, Any] = json.loads(record.read_text("utf-8"))
        if not isinstance(found["sides"], dict) or not set(found["sides"].values()) <= {"train", "val"}:
            raise ValueError("sides must map names to train or val")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{record}: damaged split record ({error}); delete it to split anew") from error
    return found


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
