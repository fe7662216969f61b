"""Which files of a folder are pairs: by equal names, by a pattern of names, in sub-folders or side by side."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.files import DataError, some_names
from data.sources.folders import (
    VAL_NAMES,
    ChoiceError,
    Listing,
    find_parts,
    find_sides,
    list_images,
    refuse_doubled,
    refuse_empty,
)
from data.sources.pair_pattern import (
    CLEAN_WORDS,
    SAME_NAME,
    SCAN_WORDS,
    PairPattern,
    bare_name,
    checked_pattern,
    find_patterns,
    words_of,
)

EXAMPLE = "'{}_noisy={}_gt'"
_ENOUGH = 0.5
"""A pattern is believed from this share of the larger side on."""

Files = Mapping[str, Path]


@dataclass(frozen=True)
class Pairing:
    """The pairs of a folder, and the files that are left."""

    place: Path
    """The folder of the pairs, or of the folders of both sides."""
    sides: tuple[Listing, Listing]
    pairs: dict[str, tuple[Path, Path]]
    """(degraded, clean) files by the name that they share, sorted. Names of sub-folders end with /."""
    pattern: PairPattern | None
    """What tells the sides apart, where names are not equal."""
    by_case: int
    """So many partners have names that are equal but for large and small letters."""
    lonely: tuple[dict[str, Path], dict[str, Path]] = field(default_factory=lambda: ({}, {}))
    """Files without partner, by name, of each side."""
    sides_by_word: tuple[str, str] | None = None
    """The folders of both sides, where a word in their names tells them."""
    left_out: tuple[Path, ...] = ()
    """Images that could be pairs: in sub-folders, where the images beside these are pairs by themselves, or of a
    third kind in a folder with both sides."""

    @property
    def remarks(self) -> list[str]:
        """What was recognised and what was left out, in words."""
        return [*self.name_remarks, *([self.left_out_remark] if self.left_out else [])]

    @property
    def name_remarks(self) -> list[str]:
        said = [] if self.pattern is None else [f"partners found by their names: {self.pattern}"]
        if self.sides_by_word is not None:
            said.append("{} taken for the degraded, {} for the clean images".format(*self.sides_by_word))
        if self.by_case:
            said.append(f"{self.by_case} partners have names that differ in case only")
        return said

    @property
    def left_out_remark(self) -> str:
        folder = self.sides[0].folder
        names = [Path(os.path.relpath(path, folder)).as_posix() for path in self.left_out]
        way = "--pair-by '{}' takes them in" if self.pattern is None else "--pair-by says what is a pair"
        return f"{len(names)} more images below {folder} are left out: {some_names(names)}; {way}"

    def refuse_faults(self) -> None:
        """Raises DataError if any file has no partner, or two have one name."""
        for side in self.sides:
            refuse_doubled(side)
        lonely = self.lonely
        if not any(lonely):
            return
        scan, clean = self.sides
        counts = (
            f"{scan.folder} has {len(scan.images)} degraded and {len(clean.images)} clean images"
            if scan.folder == clean.folder
            else f"{scan.folder} has {len(scan.images)} images, {clean.folder} has {len(clean.images)}"
        )
        missing = "; ".join(
            f"no partner for {len(alone)} of {side.folder}: {some_names(alone)}"
            for side, alone in zip(self.sides, lonely, strict=True)
            if alone
        )
        rule = (
            f"names are related by {self.pattern}"
            if self.pattern is not None
            else "partners have the same name up to the extension, or are named with --pair-by " + EXAMPLE
        )
        raise DataError(f"{counts}; {rule}\n{missing}{_hint(*lonely)}")


def find_pairs(
    folder: Path,
    scan_dir: str | None,
    clean_dir: str | None,
    pair_by: str | None,
    *,
    dead_links: bool = False,
) -> dict[str, Pairing]:
    """What `pair_files` finds in {"train": ..., "val": ...}, or in {"all": ...} where there are no such parts.

    The parts may lie above the sides (train/scan/) or below them (scan/train/).
    """
    parts = find_parts(folder)
    found = {
        part: pair_files(place, scan_dir, clean_dir, pair_by, dead_links=dead_links)
        for part, place in parts.items()
    }
    return _parts_below(found["all"]) if "all" in found else found


def _parts_below(everything: Pairing) -> dict[str, Pairing]:
    """The parts of pairs all of whose names begin with train/, val/ or test/; test images are left out."""
    by_part: dict[str, dict[str, tuple[Path, Path]]] = defaultdict(dict)
    for name, files in everything.pairs.items():
        first, _, rest = name.partition("/")
        part = "val" if first.casefold() in VAL_NAMES else first.casefold()
        by_part[part][rest or name] = files
    if by_part.keys() not in ({"train", "val"}, {"train", "val", "test"}, {"train", "test"}):
        return {"all": everything}
    test = [scan for scan, _ in by_part["test"].values()]
    train = replace(everything, pairs=by_part["train"], left_out=(*everything.left_out, *test))
    if "val" not in by_part:
        return {"all": train}
    return {
        "train": train,
        # What is wrong with the rest has been told of train.
        "val": Pairing(
            everything.place,
            (Listing(everything.sides[0].folder), Listing(everything.sides[1].folder)),
            by_part["val"],
            everything.pattern,
            0,
        ),
    }


def match_pairs(
    folder: Path, scan_dir: str | None, clean_dir: str | None, pair_by: str | None
) -> dict[str, Pairing]:
    """As `find_pairs`. Raises DataError if any image has no partner, or two have one name."""
    found = find_pairs(folder, scan_dir, clean_dir, pair_by)
    for pairing in found.values():
        pairing.refuse_faults()
    return found


def match_files(folder: Path, scan_dir: str | None, clean_dir: str | None, pair_by: str | None) -> Pairing:
    """The pairs of `folder`, all of whose images have partners. Raises DataError if not."""
    found = pair_files(folder, scan_dir, clean_dir, pair_by)
    found.refuse_faults()
    return found


def pair_files(
    folder: Path,
    scan_dir: str | None,
    clean_dir: str | None,
    pair_by: str | None,
    *,
    dead_links: bool = False,
) -> Pairing:
    """The pairs of `folder`, whatever else is in it.

    Both sides lie in folders of their own, or side by side in one folder or in one for each scene. Raises DataError
    where no images are found, or where more than one could be a partner.
    """
    given = checked_pattern(pair_by)
    try:
        places = find_sides(folder, scan_dir, clean_dir)
    except DataError as error:
        if isinstance(error, ChoiceError) or scan_dir or clean_dir or not folder.is_dir():
            raise
        # Training images must not be taken for others, for example to judge by.
        if any(path.name.lower() in ("train", *VAL_NAMES) for path in folder.iterdir()):
            raise
        if sides := _sides_by_word(folder):
            found = pair_files(folder, *sides, pair_by, dead_links=dead_links)
            return replace(found, sides_by_word=sides)
        return _side_by_side(list_images(folder, deep=True, dead_links=dead_links), given, error)

    def listed(deep: bool) -> tuple[Listing, Listing]:
        scan, clean = places
        return (
            list_images(scan, deep=deep, without=[clean], dead_links=dead_links),
            list_images(clean, deep=deep, without=[scan], dead_links=dead_links),
        )

    shallow, deep = listed(deep=False), listed(deep=True)
    if given is None and shallow[0].images and shallow[0].images.keys() == shallow[1].images.keys():
        below = (path for name, path in deep[0].files.items() if "/" in name and name in deep[1].images)
        pairs = {name: (path, shallow[1].files[name]) for name, path in shallow[0].files.items()}
        return Pairing(folder, shallow, pairs, None, 0, left_out=tuple(below))
    for side in deep:
        refuse_empty(side)
    return replace(_between(deep, given), place=folder)


def folder_groups(names: Sequence[str]) -> dict[str, str]:
    """The group of each name that lies in a sub-folder: the first folder in which the names differ."""
    shared = os.path.commonpath([name.rpartition("/")[0] or "." for name in names]) if names else ""
    start = len(shared) + 1 if shared not in ("", ".") else 0
    return {
        name: name[: start + len(first)]
        for name in names
        for first, slash, _ in [name[start:].partition("/")]
        if slash
    }


def _between(sides: tuple[Listing, Listing], given: PairPattern | None) -> Pairing:
    """The pairs between two lists of names."""
    names = [list(side.images) for side in sides]
    if given is not None:
        return _by_pattern(sides, given, several=True)
    best = _Found(SAME_NAME, *names)
    if len(best) < max(map(len, names)):
        others = [_Found(pattern, *names) for pattern in find_patterns(*names)]
        most = max(map(len, others), default=0)
        if most > len(best) and most >= _ENOUGH * max(map(len, names)):
            equals = [found for found in others if len(found) == most]
            best = equals[0]
            for other in equals[1:]:
                _refuse_two_ways(sides[0].folder, best, other)
    return _by_pattern(sides, best.pattern, several=False)


def _sides_by_word(folder: Path) -> tuple[str, str] | None:
    """The one sub-folder whose name has a word for the degraded side, and the one with a word for the clean side."""
    words = words_of(path.name for path in folder.iterdir() if path.is_dir())
    scan, clean = (
        {name for word, names in words.items() if word in known for name in names}
        for known in (SCAN_WORDS, CLEAN_WORDS)
    )
    if len(scan) == len(clean) == 1 and scan != clean:
        return scan.pop(), clean.pop()
    return None


def _hint(scan: Files, clean: Files) -> str:
    """Files that may be the partners of lonely ones; "" if none look so."""
    folded = {name.casefold() for name in scan} & {name.casefold() for name in clean}
    if folded:
        return f"; names that differ in case only, and not one to one: {some_names(sorted(folded))}"
    for here, there in ((scan, clean), (clean, scan)):
        bare = {name: bare_name(name) for name in there}
        for name, path in here.items():
            own = bare_name(name)
            like = [other for other, words in bare.items() if own and words[: len(own)] == own]
            if len(like) > 1:
                rivals = f"{there[like[0]].name} or {there[like[1]].name}"
                return f"; {path.name} could go with {rivals}: say which with --pair-by"
    return ""


class _Found:
    """Names that a pattern makes partners of."""

    def __init__(self, pattern: PairPattern, scan: Sequence[str], clean: Sequence[str]) -> None:
        self.pattern = pattern
        ours, theirs = _by_key(scan, pattern.scan_key), _by_key(clean, pattern.clean_key)
        self.exact = {key: (ours[key], theirs[key]) for key in ours.keys() & theirs.keys()}
        folded = [
            _by_key([key for key in side if key not in self.exact], str.casefold) for side in (ours, theirs)
        ]
        self.by_case = {
            folded[0][key][0]: (ours[folded[0][key][0]], theirs[folded[1][key][0]])
            for key in folded[0].keys() & folded[1].keys()
            if len(folded[0][key]) == len(folded[1][key]) == 1
        }
        self.pairs = self.exact | self.by_case

    def __len__(self) -> int:
        """How many degraded images have one partner, and are its only one."""
        return sum(len(scan) == len(clean) == 1 for scan, clean in self.pairs.values())

    @property
    def partners(self) -> dict[str, str]:
        return {scan[0]: clean[0] for scan, clean in self.pairs.values() if len(scan) == len(clean) == 1}


def _by_pattern(
    sides: tuple[Listing, Listing], pattern: PairPattern, *, several: bool, left_out: Sequence[Path] = ()
) -> Pairing:
    """Pairs by a pattern. `several`: one clean image may have several degraded ones."""
    ours, theirs = (side.files for side in sides)
    found = _Found(pattern, list(ours), list(theirs))
    pairs: dict[str, tuple[Path, Path]] = {}
    for key, (scan, clean) in found.pairs.items():
        if len(clean) > 1 or (len(scan) > 1 and not several):
            if len(clean) > 1:
                partner, rivals = ours[scan[0]], [theirs[name] for name in clean]
            else:
                partner, rivals = theirs[clean[0]], [ours[name] for name in scan]
            raise DataError(
                f"{partner}: {rivals[0].name} and {rivals[1].name} could both be its partner (by {pattern}); "
                "keep one, or say which with --pair-by"
            )
        for name in scan:
            pairs[(key or name) if len(scan) == 1 else name] = (ours[name], theirs[clean[0]])
    used = {path for pair in pairs.values() for path in pair}
    lonely_scan, lonely_clean = (
        {name: path for name, path in side.items() if path not in used} for side in (ours, theirs)
    )
    return Pairing(
        sides[0].folder,
        sides,
        dict(sorted(pairs.items())),
        None if pattern == SAME_NAME else pattern,
        len(found.by_case),
        (lonely_scan, lonely_clean),
        left_out=tuple(left_out),
    )


def _side_by_side(found: Listing, given: PairPattern | None, otherwise: DataError) -> Pairing:
    """Pairs where both sides lie in one folder, told apart by a pattern or by words such as noisy and gt."""
    if given is not None:
        if given.scan == given.clean:
            raise DataError(
                f"{otherwise}\n--pair-by {given.scan}: no sides to tell apart; write DEGRADED=CLEAN"
            )
        halves = [
            {name for name in found.images if key(name) is not None}
            for key in (given.scan_key, given.clean_key)
        ]
        # '{}_noisy={}': what has the longer form is not of the shorter one.
        if halves[0] < halves[1]:
            halves[1] -= halves[0]
        elif halves[1] < halves[0]:
            halves[0] -= halves[1]
        if both := sorted(halves[0] & halves[1]):
            raise DataError(
                f"{found.folder}: {some_names(both)} could be on either side of --pair-by {given}"
            )
        if not all(halves):
            raise DataError(
                f"{found.folder}: --pair-by {given} fits {len(halves[0])} degraded and {len(halves[1])} clean of "
                f"{len(found.images)} images: {some_names(found.images)}"
            )
        return _by_pattern(_divided(found, *halves), given, several=True)
    ways = []
    for scan, clean in _halves(list(found.images)):
        sides = _divided(found, scan, clean)
        names = [list(side.images) for side in sides]
        for pattern in find_patterns(*names):
            way = _Found(pattern, *names)
            if len(way) >= _ENOUGH * max(map(len, names)):
                ways.append((sides, way))
    if not ways:
        many = f"; {len(found.images)} images lie in {found.folder}" if found.images else ""
        raise DataError(
            f"{otherwise}{many and f'{many}: say which are partners, as in --pair-by {EXAMPLE}'}"
        ) from otherwise
    sides, best = max(ways, key=lambda way: len(way[1]))
    for _, other in ways:
        if len(other) == len(best):
            _refuse_two_ways(sides[0].folder, best, other)
    read = {path for side in sides for path in side.files.values()}
    rest = [path for path in found.files.values() if path not in read]
    return _by_pattern(sides, best.pattern, several=False, left_out=rest)


def _halves(names: Sequence[str]) -> Iterator[tuple[set[str], set[str]]]:
    """Ways to tell degraded from clean names by a word: (degraded, clean)."""
    words, everything = words_of(names), set(names)
    for word, members in words.items():
        rest = everything.difference(members)
        if rest:
            yield (set(members), rest) if word in SCAN_WORDS else (rest, set(members))
    for word, members in words.items():
        for other, theirs in words.items():
            if word in SCAN_WORDS and other in CLEAN_WORDS and not set(members) & set(theirs):
                yield set(members), set(theirs)


def _divided(found: Listing, scan: set[str], clean: set[str]) -> tuple[Listing, Listing]:
    """The listing as two sides."""
    ours, theirs = (
        {name: paths for name, paths in found.images.items() if name in half} for half in (scan, clean)
    )
    return Listing(found.folder, ours, found.others), Listing(found.folder, theirs)


def _refuse_two_ways(place: Path, one: _Found, other: _Found) -> None:
    for name, partner in one.partners.items():
        second = other.partners.get(name, partner)
        if second != partner:
            raise DataError(
                f"{place}: {name} could go with {partner} (by {one.pattern}) or with {second} (by {other.pattern}); "
                "choose with --pair-by"
            )


def _by_key(names: Sequence[str], key_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = key_of(name)
        if key is not None:
            found[key].append(name)
    return dict(found)
