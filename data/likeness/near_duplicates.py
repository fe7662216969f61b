"""Which images are the same, nearly the same, or lie on one background: compared all with all, in bulk."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from data.likeness.registration import band_pass

NEARLY = 0.95
"""Pictures of 64 x 64 pixels count as nearly the same from this correlation on, after a band pass. Different
photographs reach 0.5, pages with other words 0.3; one text in two fonts may reach 0.99."""
BACKGROUND = 0.5
"""Backgrounds may be the same from this correlation of their cells on ..."""
EQUAL_CELLS = 0.28
"""... if this share of the cells is equal, up to rounding or this share of their spread: on NoisyOffice the share
is 0.32 and more for one background under other fonts, 0.24 and less for two backgrounds."""
CELL_TOLERANCE = 0.05
FLAT = 2.5
"""A background with less spread than this (levels of 255) tells nothing."""
_ROWS = 512
_LEADERS = 400

Rows = NDArray[np.float32]


def equal_groups(values: Sequence[Hashable | None]) -> NDArray[np.int64]:
    """A number for each value, the same for equal ones; None equals nothing."""
    known: dict[Hashable, int] = {}
    return np.array(
        [place if value is None else known.setdefault(value, place) for place, value in enumerate(values)],
        np.int64,
    )


def near_duplicate_groups(thumbs: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """A number for each (64, 64) picture, the same for those that are linked by near likeness."""
    rows = descriptors(thumbs)
    return _linked(rows, NEARLY, lambda index, others: np.ones(len(others), bool))


def background_groups(papers: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """A number for each map of cells, the same for images over one background.

    Maps of several shapes are compared where they overlap from the first corner on.
    """
    groups = np.arange(len(papers), dtype=np.int64)
    shapes = equal_groups([paper.shape for paper in papers])
    for shape in np.unique(shapes):
        members = np.flatnonzero(shapes == shape)
        maps = np.stack([papers[int(member)].astype(np.float32).ravel() for member in members])
        if maps.shape[1] < 16:
            continue
        groups[members] = members[_linked(_unit(maps), BACKGROUND, _agreeing(maps))]
    leaders = [int(place) for place in np.unique(groups) if papers[place].size]
    if len(leaders) <= _LEADERS:
        for place, one in enumerate(leaders):
            for other in leaders[place + 1 :]:
                if papers[one].shape != papers[other].shape and _overlap_agrees(papers[one], papers[other]):
                    groups[groups == groups[other]] = groups[one]
    return groups


def descriptors(thumbs: Sequence[NDArray[np.uint8]]) -> Rows:
    """Unit vectors whose products are correlations of the band-passed pictures; zero for flat ones."""
    return _unit(np.stack([band_pass(thumb.astype(np.float32)).ravel() for thumb in thumbs]))


def merge_groups(groupings: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The groups that arise where any of the groupings puts two together."""
    result = groupings[0].copy()
    for grouping in groupings[1:]:
        for group in np.unique(grouping):
            linked = np.unique(result[grouping == group])
            if len(linked) > 1:
                result[np.isin(result, linked)] = linked[0]
    return result


def _linked(
    rows: Rows, least: float, confirm: Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """The first of each group of rows that are linked by a product of at least `least` that `confirm` believes."""
    groups = np.arange(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _ROWS):
        products = rows[start : start + _ROWS] @ rows[start:].T
        for index in range(start, min(start + _ROWS, len(rows))):
            later = start + np.flatnonzero(products[index - start] >= least)
            # What is together already is not looked at again: one large group costs as little as none.
            later = later[(later > index) & (groups[later] != groups[index])]
            for other in later[confirm(index, later)] if len(later) else ():
                if groups[other] != groups[index]:
                    low, high = sorted((groups[index], groups[other]))
                    groups[groups == high] = low
    return groups


def _unit(rows: NDArray[np.float32]) -> Rows:
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1e-3 * rows.shape[1] ** 0.5, rows / np.maximum(length, 1e-9), 0))


def _agreeing(maps: NDArray[np.float32]) -> Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]:
    # Not the standard deviation, which a dark half of a photograph makes large.
    middles = np.median(maps, axis=1, keepdims=True)
    spreads = 1.4826 * np.median(np.abs(maps - middles), axis=1)

    def agree(index: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        spread = np.minimum(spreads[others], spreads[index])
        tolerance = np.maximum(1, CELL_TOLERANCE * spread)[:, None]
        equal_cells = (np.abs(maps[others] - maps[index]) <= tolerance).mean(1)
        return np.asarray((equal_cells >= EQUAL_CELLS) & (spread >= FLAT))

    return agree


def _overlap_agrees(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    height, width = (min(sizes) for sizes in zip(one.shape, other.shape, strict=True))
    both = np.stack([paper[:height, :width].astype(np.float32).ravel() for paper in (one, other)])
    if both.shape[1] < 16:
        return False
    units = _unit(both)
    return bool(units[0] @ units[1] >= BACKGROUND and _agreeing(both)(0, np.array([1]))[0])
