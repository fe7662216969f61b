"""Findings that need no pixels: what the headers of the two files of a pair say."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from data.doctor.file_checks import FORMATS, Label
from data.doctor.findings import Finding
from data.doctor.inventory import PairFiles
from data.files import some_names
from data.likeness import SMALLEST

FEW_PAIRS, FEW_VAL = 10, 4


def pair_header_findings(
    pair: PairFiles, labels: tuple[Label, Label], colourful: tuple[float, float] | None
) -> Iterable[Finding]:
    """`colourful` is the root mean square difference between the channels of each side, where it is known."""
    paths = (pair.scan, pair.clean)
    for path, label in zip(paths, labels, strict=True):
        if label.problem is not None:
            kind, found = label.problem
            yield Finding(kind, found, (path,), (pair.key,))
        elif path.suffix.lower() not in FORMATS.get(label.format, ()):
            yield Finding("extension", f"the file is {label.format}", (path,), (pair.key,))
    scan, clean = (label.header for label in labels)
    if scan is None or clean is None:
        return

    def tell(kind: str, found: str, milder: bool = False) -> Finding:
        return Finding(kind, found, paths, (pair.key,), milder=milder)

    if scan.bits != clean.bits:
        yield tell("bit-depth", f"degraded has {scan.bits} bit, clean has {clean.bits}")
    if scan.channels != clean.channels:
        names = {1: "gray", 3: "colour"}
        # A colour file with equal channels is as good as a gray one.
        empty = colourful is not None and max(colourful) < 0.5
        yield tell(
            "channels",
            f"degraded is {names[scan.channels]}, clean is {names[clean.channels]}"
            + (" by format, though all is gray" if empty else ""),
            milder=empty,
        )
    if labels[0].profile != labels[1].profile:
        which = "each side has another" if all(label.profile for label in labels) else "one side has one"
        yield tell("profile", which)
    if scan.simplified or clean.simplified:
        both = [name for name, header in (("degraded", scan), ("clean", clean)) if header.simplified]
        yield tell(
            "simplified", f"palette, transparency or pages on the {' and the '.join(both)} side", milder=True
        )
    smallest = min(scan.height, scan.width, clean.height, clean.width)
    if smallest < SMALLEST:
        yield tell("tiny", f"{clean.width}x{clean.height}, a side of {smallest} px")


def set_header_findings(pairs: Sequence[PairFiles]) -> Iterable[Finding]:
    """Findings about the number of pairs, and about their names."""
    val = sum(pair.part == "val" for pair in pairs)
    if len(pairs) < FEW_PAIRS:
        yield Finding(
            "few", f"{len(pairs)} pairs in all: {some_names(pair.key for pair in pairs)}", whole_set=True
        )
    elif any(pair.part != "all" for pair in pairs) and val < FEW_VAL:
        yield Finding("few", f"{val} pairs for validation", whole_set=True)
    yield from _names(pairs)


def _names(pairs: Sequence[PairFiles]) -> Iterable[Finding]:
    """Names that differ in their last number alone, as shots of one scene do, in training and validation.

    Names tell nothing where nearly all or nearly none go together.
    """
    stems: dict[str, list[PairFiles]] = defaultdict(list)
    for pair in pairs:
        stems[re.sub(r"\d+\W*$", "", pair.name)].append(pair)
    if not 3 <= len(stems) <= len(pairs) / 2:
        return
    torn = [stem for stem, members in stems.items() if {"train", "val"} <= {pair.part for pair in members}]
    if torn:
        yield Finding(
            "shared-name",
            f"{len(torn)} of {len(stems)} beginnings of names: {some_names(f'{stem}*' for stem in torn)}",
            pairs=tuple(pair.key for stem in torn for pair in stems[stem]),
            whole_set=True,
        )
