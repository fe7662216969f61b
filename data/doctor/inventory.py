"""Which files of a data folder are pairs, told without stopping at the first that is not."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from data.doctor.findings import Finding
from data.files import is_left_out, left_out, some_names
from data.sources import CLEAN_NAMES, SCAN_NAMES, find_pairs

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


def take_inventory(
    folder: Path, scan_dir: str | None, clean_dir: str | None, pair_by: str | None = None
) -> Inventory:
    """Pairs by part and name. Raises DataError where there are no images of two sides to look at."""
    pairs: list[PairFiles] = []
    findings: list[Finding] = []
    ignored: list[Path] = []
    for part, found in find_pairs(folder, scan_dir, clean_dir, pair_by, dead_links=True).items():
        pairs += [PairFiles(part, name, *files) for name, files in found.pairs.items()]
        ours, theirs = found.lonely
        findings += _lonely(ours, theirs, found.sides[1].folder) + _lonely(
            theirs, ours, found.sides[0].folder
        )
        findings += [
            Finding("same-name", some_names(path.name for path in paths), tuple(paths))
            for side in found.sides
            for paths in side.doubled
        ]
        ignored += [path for side in found.sides for path in side.others]
        if found.name_remarks:
            findings.append(Finding("names", "; ".join(found.name_remarks), whole_set=True))
        if found.left_out:
            findings.append(Finding("left-out", found.left_out_remark, found.left_out, whole_set=True))
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
