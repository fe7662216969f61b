"""Findings of the pair doctor: every kind of fault with its weight, its name and what to do about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple


class Severity(IntEnum):
    """The larger, the worse."""

    NOTE = 0
    """Worth knowing."""
    WARNING = 1
    """Costs quality, or makes scores less sure."""
    ERROR = 2
    """Spoils a search, or keeps it from starting."""


class Kind(NamedTuple):
    """A kind of fault."""

    severity: Severity
    title: str
    advice: str


ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

KINDS = {
    "missing-mate": Kind(ERROR, "no partner", "add the partner (same name up to the extension) or remove the file"),
    "same-name": Kind(ERROR, "two files of one name", "keep one of them"),
    "empty": Kind(ERROR, "empty files", "fetch the file again, or remove the pair"),
    "unreadable": Kind(ERROR, "unreadable files", "replace the file, or remove the pair"),
    "truncated": Kind(ERROR, "damaged files", "fetch the file again, or remove the pair"),
    "unsupported": Kind(ERROR, "pixels of a type that is not read", "save as PNG or TIFF, gray or RGB, 8 or 16 bit"),
    "size": Kind(ERROR, "different sizes", "bring both sides to one size, from the same originals"),
    "exif": Kind(ERROR, "rotated on one side only", "save both sides upright (--fix does it)"),
    "turned": Kind(ERROR, "turned or mirrored on one side", "turn the side back (--fix does it)"),
    "wrong-partner": Kind(ERROR, "two different pictures", "find the true partner, or remove the pair"),
    "swapped": Kind(ERROR, "sides swapped", "exchange the two files (--fix does it)"),
    "inverted": Kind(ERROR, "negative on one side", "invert one side, or remove the pair"),
    "channel-order": Kind(ERROR, "red and blue exchanged on one side", "exchange them (--fix does it)"),
    "constant": Kind(ERROR, "one colour all over", "remove the pair"),
    "missing-part": Kind(ERROR, "a part is missing on one side", "fetch the file again, or remove the pair"),
    "depth-lost": Kind(ERROR, "16-bit file with values of 8 bit", "multiply by 257, or save as 8 bit"),
    "leak": Kind(ERROR, "training and validation share images", "keep them on one side (--fix does it)"),
    "contradiction": Kind(ERROR, "one degraded image with several clean ones", "keep the right pair"),
    "shift": Kind(WARNING, "sides shifted against each other", "align the pair again, or remove it"),
    "brightness": Kind(WARNING, "brightness off, compared to the set", "look at it: wrong exposure, wrong partner?"),
    "colour": Kind(WARNING, "colours off, compared to the set", "look at it: wrong white balance or profile?"),
    "clipped": Kind(WARNING, "more clipped than the set", "look at it: over- or underexposed?"),
    "noisy-clean": Kind(WARNING, "clean side noisier than the set", "replace the clean side: it is what is learnt"),
    "blurred-clean": Kind(WARNING, "clean side more blurred than the set", "replace the clean side"),
    "identical": Kind(WARNING, "both sides are the same image", "remove the pair: there is nothing to learn"),
    "jpeg-clean": Kind(WARNING, "JPEG blocks on the clean side", "use the originals from before compression"),
    "profile": Kind(WARNING, "colour profile on one side only", "convert both sides to sRGB; profiles are not applied"),
    "bit-depth": Kind(WARNING, "different bit depth", "save both sides alike (--fix widens to 16 bit)"),
    "channels": Kind(WARNING, "gray on one side, colour on the other", "save both sides alike (--fix does it)"),
    "extension": Kind(WARNING, "extension of another format", "rename (--fix does it)"),
    "duplicate": Kind(WARNING, "the same pair twice", "remove one (--fix does it)"),
    "near-leak": Kind(ERROR, "training and validation show nearly the same", "keep them on one side (--fix does it)"),
    "shared-background": Kind(
        WARNING, "one background or scene in training and validation", "keep it on one side (--fix does it)"
    ),
    "groups": Kind(
        WARNING, "images that belong together, and no split yet", "nothing: `run` splits by group, and so does --fix"
    ),
    "simplified": Kind(WARNING, "more than plain pixels", "read on white and first page; save plain images"),
    "tiny": Kind(WARNING, "very small images", "use larger images, or a patch that fits"),
    "few": Kind(WARNING, "few pairs", "scores over few images are not sure"),
    "range": Kind(
        WARNING, "16-bit files with values of fewer bits", "nothing where that is meant, else scale them to 0 to 65535"
    ),
    "range-differs": Kind(
        ERROR, "16-bit files with values of fewer bits on one side", "scale both sides to 0 to 65535"
    ),
    "not-read": Kind(WARNING, "images of a format that is not read", "see each"),
    "together": Kind(NOTE, "images that belong together", "intervals over them are too narrow; see compare --groups"),
    "shared-name": Kind(
        NOTE, "names that go together, in training and validation", "if they show one scene: --fix --groups PATTERN"
    ),
    "left-out": Kind(WARNING, "images that are left out", "say which are pairs with --pair-by, or move them away"),
    "names": Kind(NOTE, "names that were related", "if it is wrong: --pair-by PATTERN"),
    "ignored": Kind(NOTE, "files that are not read", "nothing, unless they were meant to be pairs"),
}  # fmt: skip


MOST = 0.5
"""A fault of more than this share of the pairs is one of the set."""
SINGLE = {"missing-mate", "same-name", "leak", "near-leak", "contradiction", "duplicate", "shared-background"}
"""About files or groups, never about the set."""


@dataclass(frozen=True)
class Finding:
    """One fault: of a pair, of a few files, or of the whole set."""

    kind: str
    found: str
    files: tuple[Path, ...] = ()
    pairs: tuple[str, ...] = ()
    """Keys of the pairs concerned: "train/0001", or "0001" where there is no split."""
    whole_set: bool = False
    milder: bool = False
    """One step less severe than its kind."""
    facts: dict[str, float] = field(default_factory=dict)
    """Numbers for programs."""

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    @property
    def severity(self) -> Severity:
        usual = KINDS[self.kind].severity
        return Severity(max(usual - 1, 0)) if self.milder else usual

    @property
    def title(self) -> str:
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        return KINDS[self.kind].advice


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By severity, then in the order of KINDS, the whole set before single pairs, then by name."""
    order = list(KINDS)
    return sorted(
        findings, key=lambda f: (-f.severity, order.index(f.kind), not f.whole_set, f.pairs, f.files)
    )


def of_the_set(found: Sequence[Finding], number: int) -> list[Finding]:
    """The same, with faults that most of the `number` pairs have told once."""
    result = []
    counts = Counter((f.kind, f.milder) for f in found)
    common = {
        key: count for key, count in counts.items() if count > max(MOST * number, 1) and key[0] not in SINGLE
    }
    told = set()
    for finding in found:
        key = (finding.kind, finding.milder)
        if key not in common:
            result.append(finding)
        elif key not in told:
            told.add(key)
            pairs = tuple(f.pairs[0] for f in found if (f.kind, f.milder) == key)
            result.append(
                Finding(
                    finding.kind,
                    f"{common[key]} of {number} pairs; the first: {finding.found}",
                    finding.files,
                    pairs,
                    whole_set=True,
                    milder=finding.milder,
                    facts=finding.facts,
                )
            )
    return result
