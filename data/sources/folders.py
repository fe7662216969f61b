"""Finding the image files of a data folder: its train and val parts, its two sides, its names."""

import unicodedata
from pathlib import Path

from data.files import EXTENSIONS, DataError, no_images, some_names

SCAN_NAMES = ("scan", "scans", "noisy", "lq", "input", "inputs", "degraded", "dirty", "low")
CLEAN_NAMES = ("clean", "cleaned", "gt", "hq", "target", "targets", "groundtruth", "high")
VAL_NAMES = ("val", "valid", "validation")


def find_parts(folder: Path) -> dict[str, Path]:
    """The folders to read: {"train": ..., "val": ...} where `folder` has both, else {"all": ...} to be split.

    A train folder without a val folder is split too.
    """
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
    """The image files of a folder by stem, sorted. Hidden and other files are ignored.

    Raises DataError if there are none, or two of one stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS or not path.is_file():
            continue
        # The same accented name can be stored in two ways (macOS, others).
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise DataError(f"{folder}: two images of one name, {found[stem].name} and {path.name}; keep one")
        found[stem] = path
    if not found:
        raise no_images(folder)
    return dict(sorted(found.items()))


def match_names(scan: Path, clean: Path) -> dict[str, tuple[Path, Path]]:
    """(degraded, clean) files by their common stem, sorted. Raises DataError if any has no partner."""
    degraded, originals = find_images(scan), find_images(clean)
    lonely = {
        str(folder): sorted(here.keys() - there.keys())
        for folder, here, there in ((scan, degraded, originals), (clean, originals, degraded))
    }
    if any(lonely.values()):
        counts = f"{scan} has {len(degraded)} images, {clean} has {len(originals)}"
        missing = "; ".join(
            f"no partner for {len(stems)} of {folder}: {some_names(stems)}"
            for folder, stems in lonely.items()
            if stems
        )
        raise DataError(f"{counts}; partners have the same name up to the extension\n{missing}")
    return {stem: (path, originals[stem]) for stem, path in degraded.items()}


def _subfolders(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder" if not folder.exists() else f"{folder}: not a folder")
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
        raise DataError(
            f"{folder}: {', '.join(path.name for path in found)} could all be meant; choose with {flag}"
        )
    raise DataError(
        f"{folder}: no folder named {', '.join(known[:-1])} or {known[-1]} "
        f"(found: {some_names(inside, 5) or 'none'})\nname yours with {flag}"
    )
