"""Finding the image files of a data folder: its train and val parts, its two sides, its names."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.files import EXTENSIONS, DataError, no_images, some_names

SCAN_NAMES = ("scan", "scans", "noisy", "lq", "input", "inputs", "degraded", "dirty", "low")
CLEAN_NAMES = ("clean", "cleaned", "gt", "hq", "target", "targets", "groundtruth", "high")
VAL_NAMES = ("val", "valid", "validation")
# Folders that systems and archives leave behind; they may hold small copies of the images.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
                  "lost+found"}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


class ChoiceError(DataError):
    """Several folders could be meant."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder. Hidden files and what systems leave behind are in neither list."""

    folder: Path
    images: dict[str, list[Path]] = field(default_factory=dict)
    """By name: the path below `folder` without its extension, with / on every system. Sorted by name; of
    several files with one name the first counts."""
    others: list[Path] = field(default_factory=list)
    """Files that are not read, and sub-folders where only the folder itself was looked through."""

    @property
    def files(self) -> dict[str, Path]:
        return {name: paths[0] for name, paths in self.images.items()}

    @property
    def doubled(self) -> list[list[Path]]:
        """Files of one name."""
        return [paths for paths in self.images.values() if len(paths) > 1]


def find_parts(folder: Path) -> dict[str, Path]:
    """The folders to read: {"train": ..., "val": ...} where `folder` has both, else {"all": ...} to be split.

    A train folder without a val folder is split too.
    """
    if not folder.exists():
        raise DataError(
            f"{folder}: no such folder; if the images were moved, name their place with --data DIR"
        )
    inside = _subfolders(folder)
    val = [inside[name] for name in VAL_NAMES if name in inside]
    if "train" not in inside:
        if val:
            raise DataError(f"{folder}: has {val[0].name}/ but no train/ beside it")
        return {"all": folder}
    return {"train": inside["train"], "val": val[0]} if val else {"all": inside["train"]}


def find_sides(folder: Path, scan_dir: str | None, clean_dir: str | None) -> tuple[Path, Path]:
    """The folders of degraded and of clean images inside `folder`, by the names given or else well known."""
    scan = _side(folder, scan_dir, SCAN_NAMES, "--scan-dir")
    clean = _side(folder, clean_dir, CLEAN_NAMES, "--clean-dir")
    if scan.resolve() == clean.resolve():
        raise DataError(f"{scan}: named as folder of both the degraded and the clean images")
    return scan, clean


def find_originals(folder: Path, clean_dir: str | None) -> Path:
    """Where images without a degraded side lie: the folder named, else `folder` itself, else its clean/."""
    holds_images = any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir() if path.is_file())
    return (
        folder if clean_dir is None and holds_images else _side(folder, clean_dir, CLEAN_NAMES, "--clean-dir")
    )


def find_images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by name, sorted; those of its sub-folders where it has none itself.

    Raises DataError if there are none, or two of one name.
    """
    found = list_images(folder)
    if not found.images:
        found = list_images(folder, deep=True)
    refuse_empty(found)
    refuse_doubled(found)
    return found.files


def refuse_empty(found: Listing) -> None:
    if not found.images:
        raise no_images(found.folder, filter(Path.is_file, found.others))


def refuse_doubled(found: Listing) -> None:
    for first, second, *_ in found.doubled:
        raise DataError(f"{first.parent}: two images of one name, {first.name} and {second.name}; keep one")


def list_images(
    folder: Path, *, deep: bool = False, without: Sequence[Path] = (), dead_links: bool = False
) -> Listing:
    """The files of `folder`, and if `deep` those of all folders below it but `without`. Links are followed.

    Links that lead nowhere are passed over, or are listed as well if `dead_links`.
    """
    found: dict[str, list[Path]] = {}
    others: list[Path] = []
    for path in _walk(folder, deep, {place.resolve() for place in without}):
        dead = path.is_symlink() and not path.exists()
        if path.suffix.lower() not in EXTENSIONS or not (dead or path.is_file()):
            others.append(path)
            continue
        if dead and not dead_links:
            continue
        # The same accented name can be stored in two ways (macOS, others).
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        found.setdefault(name, []).append(path)
    return Listing(folder, dict(sorted(found.items())), others)


def _walk(folder: Path, deep: bool, seen: set[Path]) -> Iterator[Path]:
    """Files, and folders that are not looked into."""
    places = [folder]
    while places:
        place = places.pop()
        seen.add(place.resolve())
        for path in sorted(place.iterdir()):
            if path.name.startswith(".") or path.name.lower() in SYSTEM_FILES | SYSTEM_FOLDERS:
                continue
            if deep and path.is_dir():
                # A link to a folder above would never end.
                if path.resolve() not in seen and os.access(path, os.R_OK | os.X_OK):
                    places.append(path)
            else:
                yield path


def _subfolders(folder: Path) -> dict[str, Path]:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    return {
        path.name.lower(): path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


def _side(folder: Path, given: str | None, known: tuple[str, ...], flag: str) -> Path:
    if given is not None:
        if not (folder / given).is_dir():
            raise DataError(f"{folder / given}: no such folder ({flag} {given})")
        return folder / given
    inside = _subfolders(folder)
    found = [inside[name] for name in known if name in inside]
    # The first known name is the documented one, so it needs no choice.
    if len(found) == 1 or (found and found[0].name.lower() == known[0]):
        return found[0]
    if found:
        raise ChoiceError(
            f"{folder}: {', '.join(path.name for path in found)} could all be meant; choose with {flag}"
        )
    raise DataError(
        f"{folder}: no folder named {', '.join(known[:-1])} or {known[-1]} "
        f"(found: {some_names(inside, 5) or 'none'})\nname yours with {flag}"
    )
