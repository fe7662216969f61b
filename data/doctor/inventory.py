"""Which files of a data folder are pairs, told without stopping at the first that is not."""

import difflib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data.doctor.findings import Finding
from data.files import EXTENSIONS, is_left_out, left_out, no_images, some_names
from data.sources import CLEAN_NAMES, SCAN_NAMES, find_parts, find_sides

SIDE_WORDS = re.compile("|".join(sorted({*SCAN_NAMES, *CLEAN_NAMES, "noise", "real", "mean"}, key=len)[::-1]))
_LOOK_ALIKES = 300
"""Among more lonely files than this no look-alikes are sought."""


@dataclass(frozen=True)
class PairFiles:
    """Two files of one name."""

    part: str
    """train, val, or all where there is no split."""
    name: str
    scan: Path
    clean: Path

    @property
    def key(self) -> str:
        """Unique in the folder: "train/0001", or "0001" where there is no split."""
        return self.name if self.part == "all" else f"{self.part}/{self.name}"


@dataclass(frozen=True)
class Inventory:
    """The pairs of a folder, and what was wrong with the rest."""

    pairs: list[PairFiles]
    findings: list[Finding]


def take_inventory(folder: Path, scan_dir: str | None, clean_dir: str | None) -> Inventory:
    """Pairs by part and name. Raises DataError where there are no two folders with images to look at."""
    pairs: list[PairFiles] = []
    findings: list[Finding] = []
    ignored: list[Path] = []
    for part, place in find_parts(folder).items():
        scan, clean = find_sides(place, scan_dir, clean_dir)
        ours, theirs = (_images(side, findings, ignored) for side in (scan, clean))
        pairs += [PairFiles(part, name, ours[name], theirs[name]) for name in sorted(ours.keys() & theirs)]
        findings += _lonely(ours, theirs, clean) + _lonely(theirs, ours, scan)
    if unread := [path for path in ignored if is_left_out(path)]:
        findings.append(Finding("not-read", left_out(unread), tuple(unread)))
    if ignored := [path for path in ignored if not is_left_out(path)]:
        findings.append(
            Finding(
                "ignored",
                f"{len(ignored)} files: {some_names(path.name for path in ignored)}",
                tuple(ignored),
            )
        )
    return Inventory(pairs, findings)


def _images(side: Path, findings: list[Finding], ignored: list[Path]) -> dict[str, Path]:
    """By name; of two files with one name the first counts. Raises DataError if there are none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(side.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in EXTENSIONS and (path.is_file() or _leads_nowhere(path)):
            found.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
        else:
            ignored.append(path)
    if not found:
        raise no_images(side)
    findings += [
        Finding("same-name", some_names(path.name for path in paths), tuple(paths))
        for paths in found.values()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in found.items()}


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _lonely(here: dict[str, Path], there: dict[str, Path], folder: Path) -> list[Finding]:
    """One finding for each name that only `here` has; `folder` is where its partner should be."""
    alone, free = sorted(here.keys() - there), sorted(there.keys() - here)
    return [
        Finding("missing-mate", f"not in {folder}{_perhaps(name, free)}", (here[name],)) for name in alone
    ]


def _perhaps(name: str, free: list[str]) -> str:
    """Names that tell the sides apart, as 0001_noisy and 0001_clean, are the usual reason."""
    if len(free) > _LOOK_ALIKES:
        return ""
    bare = {_bare(other): other for other in free}
    close = difflib.get_close_matches(_bare(name), bare, n=1, cutoff=0.9)
    return f"; {bare[close[0]]} perhaps?" if close else ""


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", SIDE_WORDS.sub("", name.casefold()))
