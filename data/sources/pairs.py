"""Pairs of degraded and clean images from two folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from data.cropping import Crop, Vary, cut_crop, dihedral, resize_crop
from data.files import DataError, Header, Pair, Pixels, expand_home, some_names, to_unit
from data.sources.grouping import leak_remark, pair_groups, shared_with_training
from data.sources.pair_pattern import parse_pattern
from data.sources.pairing import match_files, match_pairs
from data.sources.pixel_cache import load_pixels, pixel_kind, read_headers, white_level
from data.sources.split import PairSet, Split, divided, place_key

Files = dict[str, tuple[Path, Path]]


class PairsConfig(BaseModel):
    """DIR/{train,val}/{scan,clean} or DIR/{scan,clean}; the two files of a pair share their stem."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pairs"] = "pairs"
    dir: Annotated[Path, AfterValidator(expand_home)] = Field(description="folder of the pairs")
    scan_dir: str | None = Field(
        None, description="name of the folder of degraded images; none: scan, noisy, lq, input, ..."
    )
    clean_dir: str | None = Field(
        None, description="name of the folder of clean images; none: clean, gt, hq, target, ..."
    )
    pair_by: str | None = Field(
        None,
        description="how the names of partners are made, as '{}_noisy={}_gt': {} is what they share, * anything else; "
        "none: equal names, or what is recognised",
        # States of trials from before there was this setting name all others, and must be found to be of the same run.
        exclude_if=lambda pattern: pattern is None,
    )
    val_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of the images held out for validation where DIR has no train/ and val/",
    )
    channels: Literal["auto", 1, 3] = Field(
        "auto", description="1 gray, 3 colour; auto: colour if any image is"
    )

    @field_validator("scan_dir", "clean_dir")
    @classmethod
    def _inside(cls, name: str | None) -> str | None:
        if name is not None and (not name or Path(name).is_absolute() or ".." in Path(name).parts):
            raise ValueError(
                f"{name!r} must be the name of a folder inside DIR (or inside its train/ and val/)"
            )
        return name

    @field_validator("pair_by")
    @classmethod
    def _pattern(cls, text: str | None) -> str | None:
        if text is not None:
            parse_pattern(text)
        return text

    def open(self, *, seed: int, cache: Path) -> Split:
        """Decodes all pairs. `seed` only matters where there is no train/ and val/ and no earlier split.

        Raises DataError for everything that is wrong with the files.
        """
        train, val, how, remarks = self.files(seed=seed, cache=cache)
        return open_files(train, val, self.channels, how, cache, remarks)

    def files(self, *, seed: int, cache: Path) -> tuple[Files, Files, str, list[str]]:
        """The (degraded, clean) files of training and validation by name, how they were split, and remarks."""
        found = match_pairs(self.dir, self.scan_dir, self.clean_dir, self.pair_by)
        pairs = {part: pairing.pairs for part, pairing in found.items()}
        remarks = list(dict.fromkeys(line for pairing in found.values() for line in pairing.remarks))
        settings = (self.scan_dir, self.clean_dir) + ((self.pair_by,) if self.pair_by else ())
        everything = pairs.get("all", {})
        train, val, how = divided(
            pairs,
            self.val_fraction,
            seed,
            self.dir,
            cache,
            settings,
            lambda names: pair_groups(names, everything),
            {"pairing": found["all"].name_remarks} if "all" in found and found["all"].name_remarks else None,
        )
        return train, val, how, remarks

    def open_all(self, *, cache: Path) -> "FolderPairs":
        """Decodes all pairs of DIR/{scan,clean} as one set: images to judge by, none to train on."""
        files = match_files(self.dir, self.scan_dir, self.clean_dir, self.pair_by).pairs
        _, _, pixels, _, _ = _decoded(
            [path for pair in files.values() for path in pair], self.channels, cache
        )
        return FolderPairs(list(files), pixels[::2], pixels[1::2])


class FolderPairs(PairSet):
    """Pairs whose pixels are decoded."""

    def __init__(self, names: Sequence[str], degraded: Sequence[Pixels], clean: Sequence[Pixels]) -> None:
        """Images are (C, H, W), all of one pixel type; the two sides of a pair have one shape."""
        assert len(names) == len(degraded) == len(clean)
        self._names, self._degraded, self._clean = list(names), list(degraded), list(clean)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        _, height, width = self._clean[index].shape
        return height, width

    def whole(self, index: int) -> Pair:
        return Pair(to_unit(self._degraded[index]), to_unit(self._clean[index]))

    def crops(self, crops: Sequence[Crop], patch: int, vary: Vary, key: tuple[int, ...]) -> Pair:
        sides = [to_unit(collate(side, crops, patch)) for side in (self._degraded, self._clean)]
        for side in sides:
            vary(side.numpy())
        return Pair(*sides)


def collate(images: Sequence[Pixels], crops: Sequence[Crop], patch: int) -> Pixels:
    """The crops, cut, resized and turned, as one (B, C, patch, patch) array of the images' own pixel type."""
    batch = np.empty((len(crops), images[0].shape[0], patch, patch), images[0].dtype)
    for place, (image, top, left, side, element) in zip(batch, crops, strict=True):
        place[...] = dihedral(resize_crop(cut_crop(images[image], top, left, side), patch), element)
    return batch


def open_files(
    train: Files,
    val: Files,
    channels: Literal["auto", 1, 3],
    how: str,
    cache: Path,
    remarks: Sequence[str] = (),
) -> Split:
    """Decodes (degraded, clean) files by name into a Split; `how` ends its note.

    Raises DataError if there is nothing to restore, as both sides of every pair are the same.
    """
    paths = [path for files in (train, val) for pair in files.values() for path in pair]
    number, white, pixels, digest, headers = _decoded(paths, channels, cache)
    scans, cleans = pixels[::2], pixels[1::2]
    names = [*train, *val]
    said = [*remarks, *_same_sides(names, scans, cleans, paths[0])]
    cutoff = len(train)
    first = FolderPairs(names[:cutoff], scans[:cutoff], cleans[:cutoff])
    second = FolderPairs(names[cutoff:], scans[cutoff:], cleans[cutoff:])
    fingerprint = place_key(digest, *train, "", *val)
    shared = shared_with_training(first, second, lambda: (scans, cleans), fingerprint, cache)
    note = f"{len(train)} train / {len(val)} val pairs, {pixel_kind(pixels, white)}{_mixed(headers, number)}, {how}"
    if shared.note:
        note += f"; of {len(val)} validation images {shared.note}"
        said.append(leak_remark(shared, len(val)))
    return Split(
        train=first,
        val=second,
        channels=number,
        fingerprint=fingerprint,
        note=note,
        remarks=tuple(said),
        leaked=frozenset(shared.alike | shared.background),
        white_level=white,
    )


def _same_sides(
    names: Sequence[str], scans: Sequence[Pixels], cleans: Sequence[Pixels], first: Path
) -> list[str]:
    """A remark about pairs whose sides are one image. Raises DataError if all are."""
    same = [
        name
        for name, scan, clean in zip(names, scans, cleans, strict=True)
        # Most pairs differ everywhere: a part tells.
        if np.array_equal(scan[:, ::16], clean[:, ::16]) and np.array_equal(scan, clean)
    ]
    if len(same) == len(names):
        raise DataError(
            f"{first.parent}: nothing to restore on {len(same)} of {len(names)} pairs: both sides are the same image; "
            "is one side a copy of the other?"
        )
    return (
        [
            f"nothing to restore on {len(same)} of {len(names)} pairs: {some_names(sorted(same))}: both sides are equal"
        ]
        if same
        else []
    )


def _mixed(headers: Sequence[Header], channels: int) -> str:
    """Words about pairs with one gray and one colour side, and what the model will be."""
    sides = [(scan.channels, clean.channels) for scan, clean in zip(headers[::2], headers[1::2], strict=True)]
    kinds = {1: "gray", 3: "colour"}
    words = [
        f"{number} of {len(sides)} pairs have a {kinds[mix[0]]} degraded and a {kinds[mix[1]]} clean side"
        for mix in ((1, 3), (3, 1))
        if (number := sides.count(mix))
    ]
    return f" ({'; '.join(words)}: the model will be {kinds[channels]})" if words else ""


def _decoded(
    paths: Sequence[Path], channels: Literal["auto", 1, 3], cache: Path
) -> tuple[int, int, list[Pixels], str, list[Header]]:
    """Channel count, the value of white in 16-bit files, (C, H, W) pixels, their digest and headers.

    Degraded and clean files take turns in `paths`.
    """
    headers = read_headers(paths)
    _check_sizes(paths, headers)
    number = channel_count(headers, channels)
    white = white_level(paths, headers)
    return number, white, *load_pixels(paths, headers, number, cache, white), headers


def channel_count(headers: Sequence[Header], wanted: Literal["auto", 1, 3]) -> int:
    """1 or 3: what is wanted, or enough for every file."""
    return max(header.channels for header in headers) if wanted == "auto" else wanted


def _check_sizes(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    wrong = [
        f"{scan} is {a.width}x{a.height}, {clean.name} beside it is {b.width}x{b.height}"
        for scan, clean, a, b in zip(paths[::2], paths[1::2], headers[::2], headers[1::2], strict=True)
        if (a.height, a.width) != (b.height, b.width)
    ]
    if wrong:
        more = f" ({len(wrong)} pairs differ)" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0]}; both sides of a pair must have one size{more}")
