"""Things that pairs have in common, and whether that crosses from training to validation."""

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.doctor.findings import Finding
from data.doctor.pair_stats import MeasuredPair
from data.files import some_names
from data.likeness import (
    BLANK,
    LEAST_SPREAD,
    Groups,
    Links,
    Look,
    equal_groups,
    link_pairs,
    merge_groups,
)


def find_links(measured: Sequence[MeasuredPair]) -> Links:
    """Of pairs whose files can be read. Images of one colour belong to nobody."""

    def look(m: MeasuredPair, side: int) -> Look:
        assert m.textures is not None and m.thumbs is not None, "only readable pairs are compared"
        texture = m.textures[side]
        return Look(
            texture.digest if texture.spread > LEAST_SPREAD else None,
            m.thumbs[side] if m.telling else BLANK,
            m.paper,
        )

    return link_pairs(*([look(m, side) for m in measured] for side in (0, 1)))


def leak_findings(
    measured: Sequence[MeasuredPair], linked: Links, ill: Collection[str] = ()
) -> Iterator[Finding]:
    """Findings about what is shared, from the worst on; what a worse finding has told is not told again.

    Pairs of the keys `ill` are known to have a side that is not theirs.
    """
    split = any(m.pair.part == "val" for m in measured)
    told: set[str] = set()
    yield from _pairs_twice(measured, linked)
    yield from _contradictions(measured, linked, ill)
    if split:
        for kind, groups, what in (
            ("leak", linked.same_clean, "the same clean image"),
            ("leak", linked.same_scan, "the same degraded image"),
            ("near-leak", linked.nearly_clean, "nearly the same clean image"),
            ("near-leak", linked.nearly_scan, "nearly the same degraded image"),
            ("shared-background", linked.background, "one background behind different content"),
        ):
            yield from _across(measured, groups, kind, what, told)
    yield from _together(measured, linked, split)


def _members(groups: Groups) -> Iterator[NDArray[np.int64]]:
    """The places of each group of more than one."""
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    for members in np.split(order, starts[1:]):
        if len(members) > 1:
            yield members


def _pairs_twice(measured: Sequence[MeasuredPair], linked: Links) -> Iterator[Finding]:
    for part in ("train", "val", "all"):
        places = np.array([place for place, m in enumerate(measured) if m.pair.part == part], np.int64)
        both = equal_groups(
            list(zip(linked.same_scan[places].tolist(), linked.same_clean[places].tolist(), strict=True))
        )
        for members in _members(both):
            pairs = [measured[places[member]].pair for member in members]
            yield Finding(
                "duplicate",
                f"the same pair as {some_names(pair.key for pair in pairs[1:])}",
                tuple(pair.clean for pair in pairs),
                tuple(pair.key for pair in pairs),
            )


def _contradictions(
    measured: Sequence[MeasuredPair], linked: Links, ill: Collection[str]
) -> Iterator[Finding]:
    for group in _members(linked.same_scan):
        members = np.array([member for member in group if measured[member].pair.key not in ill], np.int64)
        if len(set(linked.same_clean[members].tolist())) > 1:
            pairs = [measured[member].pair for member in members]
            yield Finding(
                "contradiction",
                f"{some_names(pair.key for pair in pairs)} have one degraded image and different clean ones",
                tuple(path for pair in pairs for path in (pair.scan, pair.clean)),
                tuple(pair.key for pair in pairs),
            )


def _across(
    measured: Sequence[MeasuredPair], groups: Groups, kind: str, what: str, told: set[str]
) -> Iterator[Finding]:
    """One finding for each group with pairs on both sides that are not yet known to share something worse."""
    for members in _members(groups):
        pairs = [measured[member].pair for member in members]
        train = [pair for pair in pairs if pair.part == "train"]
        val = [pair for pair in pairs if pair.part == "val"]
        fresh = [pair for pair in val if pair.key not in told]
        if not fresh or not train:
            continue
        told.update(pair.key for pair in fresh)
        a, b = train[0], fresh[0]
        side = (a.scan, b.scan) if "degraded" in what or "background" in what else (a.clean, b.clean)
        yield Finding(
            kind,
            f"{what}: {some_names(pair.key for pair in train)} and {some_names(pair.key for pair in fresh)}",
            side,
            tuple(pair.key for pair in (*train, *fresh)),
        )


def _together(measured: Sequence[MeasuredPair], linked: Links, split: bool) -> Iterator[Finding]:
    """Groups inside a part: no harm there, but good to know; and what a split by image would tear apart."""
    if not any(True for _ in _members(linked.all())):
        return
    ways = [
        f"{text} ({_counted(groups)})"
        for text, groups in (
            ("the same clean image", linked.same_clean),
            ("the same degraded image", linked.same_scan),
            ("nearly the same clean image", merge_groups([linked.same_clean, linked.nearly_clean])),
            ("nearly the same degraded image", linked.nearly_scan),
            ("one background", linked.background),
        )
        if any(True for _ in _members(groups))
    ]
    yield Finding(
        "together" if split else "groups",
        f"{len(measured)} pairs, of which {_counted(linked.all())}: {'; '.join(ways)}",
        pairs=tuple(m.pair.key for m in measured),
        whole_set=True,
    )


def _counted(groups: Groups) -> str:
    sizes = [len(members) for members in _members(groups)]
    return f"{sum(sizes)} in {len(sizes)} group{'s' * (len(sizes) > 1)}"


def group_names(
    measured: Sequence[MeasuredPair], linked: Links, given: Iterable[str] | None = None
) -> Groups:
    """Which pairs a split must not part: as linked, and as `given` says of each."""
    groupings = [linked.all()]
    if given is not None:
        groupings.append(equal_groups(list(given)))
    return merge_groups(groupings)
