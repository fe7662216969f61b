"""Patterns of names: what the names of two partners have in common, given by the user or found by looking."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from data.files import DataError
from data.sources.folders import CLEAN_NAMES, SCAN_NAMES

SHARED, ANYTHING, BETWEEN = "{}", "*", "="
SCAN_WORDS = frozenset({*SCAN_NAMES, "noise", "real", "blur", "blurry", "rainy", "hazy"})
CLEAN_WORDS = frozenset({*CLEAN_NAMES, "mean", "ref", "reference", "truth", "sharp", "norain"})
_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[\W_]+|[^\W\d_]+")
# A marker ends all names of a side, begins them, or stands in between.
_FORMS = (("{}", ""), ("", "{}"), ("{}", "{}"))
_LONGEST = 5
"""Most tokens, separators among them, that tell the sides apart."""
_TRIED = 6
"""Most markers of one side that are tried with each of the other."""


@dataclass(frozen=True)
class PairPattern:
    """How names of the two sides are made: {} is what partners share, * is anything else but /.

    Letters outside of these may be large or small.
    """

    scan: str = SHARED
    clean: str = SHARED

    def __str__(self) -> str:
        return f"{self.scan}{BETWEEN}{self.clean}"

    def scan_key(self, name: str) -> str | None:
        """What a degraded image shares with its partner; None for a name of another form."""
        return _key(self._compiled[0], name)

    def clean_key(self, name: str) -> str | None:
        return _key(self._compiled[1], name)

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _compiled(self.scan), _compiled(self.clean)


SAME_NAME = PairPattern()


def parse_pattern(text: str) -> PairPattern:
    """The pattern in "DEGRADED=CLEAN", or in one half for both. Raises ValueError with what is allowed."""
    halves = text.split(BETWEEN)
    if len(halves) > 2 or not all(SHARED in half for half in halves):
        raise ValueError(
            f"{text!r} must be DEGRADED=CLEAN, with {{}} for what the names of partners share and * for anything "
            "else, as '{}_noisy={}_gt'"
        )
    return PairPattern(halves[0], halves[-1])


def checked_pattern(text: str | None) -> PairPattern | None:
    """As `parse_pattern`, with DataError for the flag."""
    try:
        return None if text is None else parse_pattern(text)
    except ValueError as error:
        raise DataError(f"--pair-by: {error}") from None


def find_patterns(scan: Sequence[str], clean: Sequence[str]) -> list[PairPattern]:
    """Patterns that may relate the names of two sides, the plainest first.

    A marker is what all names of a side have at the end, at the beginning or in between, and not all of the other.
    """
    ours, theirs = ([*_markers(*sides)[:_TRIED], ""] for sides in ((scan, clean), (clean, scan)))
    return [
        PairPattern(*(f"{before}{marker}{after}" if marker else SHARED for marker in (mine, other)))
        for mine in ours
        for other in theirs
        if mine or other
        for before, after in _FORMS
    ]


def words_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The names by each word in them that is known to tell a side."""
    found: dict[str, list[str]] = {}
    for name in names:
        for word in sorted(_words(name)):
            found.setdefault(word, []).append(name)
    return found


def bare_name(name: str) -> list[str]:
    """The words and numbers of a name without those that are known to tell a side."""
    known = SCAN_WORDS | CLEAN_WORDS
    return [
        token for token in map(str.casefold, _TOKENS.findall(name)) if token.isalnum() and token not in known
    ]


def _words(text: str) -> set[str]:
    """The known words in it."""
    return {token.casefold() for token in _TOKENS.findall(text)} & (SCAN_WORDS | CLEAN_WORDS)


def _markers(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Runs of tokens that all of `names` have and some of `others` have not; the best first."""
    tokens = _TOKENS.findall(names[0])
    runs = {
        "".join(tokens[start:end])
        for start in range(len(tokens))
        for end in range(start + 1, min(start + _LONGEST, len(tokens)) + 1)
    }
    folded, other_folded = ([name.casefold() for name in side] for side in (names, others))

    def tells(run: str) -> bool:
        part = run.casefold()
        return (
            any(letter.isalnum() for letter in run)
            and all(part in name for name in folded)
            and not all(part in name for name in other_folded)
        )

    def worth(run: str) -> tuple[bool, int, int, bool, str]:
        separators = len(re.findall(r"[\W_]", run))
        # What is left of a name should neither end with a separator nor have two in a row.
        return not _words(run), sum(map(str.isalnum, run)), abs(separators - 1), run[-1].isalnum(), run

    return sorted(filter(tells, runs), key=worth)


def _compiled(half: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\}|\*)", half)
    last = max(place for place, part in enumerate(parts) if part == SHARED)
    words = {SHARED: "(.*?)", ANYTHING: "[^/]*?"}
    made = ["(.*)" if place == last else words.get(part, re.escape(part)) for place, part in enumerate(parts)]
    return re.compile("".join(made), re.IGNORECASE | re.DOTALL)


def _key(pattern: re.Pattern[str], name: str) -> str | None:
    found = pattern.fullmatch(name)
    if found is None:
        return None
    key = found[1]
    for group in range(2, pattern.groups + 1):
        # '{}/noisy/{}': what is shared has the folder still.
        folder = "/" in name[found.end(group - 1) : found.start(group)]
        key += "/" * (folder and not key.endswith("/") and not found[group].startswith("/")) + found[group]
    return key
