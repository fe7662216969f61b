"""Pairs that differ from the rest of their set, in numbers: median and median deviation say what is usual.

A set whose degradation is a brightness offset has that offset everywhere: only the pair that differs is told.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from data.doctor.findings import Finding
from data.doctor.pair_stats import MeasuredPair

DEVIATIONS = 5.0
"""So many robust standard deviations from the median make an outlier, if it also exceeds a floor."""
FEWEST = 5
"""Fewer pairs than this are not a set to compare with."""
CLEAR_SHIFT = 0.35
"""Pixels: a smaller shift of one pair is not told."""
SIDES = ("degraded", "clean")
OFFSET_SCALE = 40.0

Pairs = Sequence[MeasuredPair]
Told = Iterable[Finding]


def unusual_pairs(fitting: Pairs) -> Told:
    """Findings about what is unusual in pairs whose two sides have one size."""
    first = [*_clean_sides(fitting), *_shifts(fitting)]
    yield from first
    # Where edges do not lie on edges, dark and bright places differ too.
    told = {finding.pairs[0] for finding in first}
    yield from (finding for finding in _levels(fitting) if finding.pairs[0] not in told)
    yield from _clipping(fitting)


def tell(m: MeasuredPair, kind: str, found: str, milder: bool = False, **facts: float) -> Finding:
    """A finding about one pair."""
    return Finding(kind, found, (m.pair.scan, m.pair.clean), (m.pair.key,), milder=milder, facts=facts)


def character(m: MeasuredPair) -> tuple[float, float, float, float, float]:
    """Measures that change their sign with the sides.

    Logarithms of degraded over clean noise, contrast and edges, with which side their difference goes, and their
    offset in units of OFFSET_SCALE levels.
    """
    assert m.textures is not None and m.fit is not None
    scan, clean = m.textures
    return (
        float(np.log2((scan.noise + 0.5) / (clean.noise + 0.5))),
        float(np.log2((scan.contrast + 1) / (clean.contrast + 1))),
        float(np.log2((scan.edges + 1) / (clean.edges + 1))),
        m.fit.with_scan + m.fit.with_clean,
        m.fit.offset / OFFSET_SCALE,
    )


def median_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and the standard deviation that a normal distribution of this median deviation has."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def _outliers(
    values: NDArray[np.float64], floor: float, above_only: bool = False, deviations: float = DEVIATIONS
) -> Iterable[tuple[int, float]]:
    """Places of values far from the median, and the median."""
    usual, spread = median_and_deviation(values)
    away = values - usual if above_only else np.abs(values - usual)
    for place in np.flatnonzero(away > max(floor, deviations * spread)):
        yield int(place), usual


def _levels(fitting: Pairs) -> Told:
    """Brightness and colour."""
    brighter: dict[int, str] = {}
    for where in ("offset", "dark", "bright"):
        offset = np.array([getattr(m.fit, where) for m in fitting])
        place_in = {"offset": "", "dark": " where clean is darkest", "bright": " where clean is brightest"}[
            where
        ]
        for place, usual in _outliers(offset, 10.0):
            told = f"degraded minus clean is {offset[place]:+.0f} levels{place_in}, in the set usually {usual:+.0f}"
            brighter.setdefault(place, told)
    for place, told in brighter.items():
        yield tell(fitting[place], "brightness", told)
    cast_already = set()
    for channel, name in enumerate(("red", "blue")):
        cast = np.array([m.fit.colour[channel] for m in fitting if m.fit])
        for place, usual in _outliers(cast, 8.0):
            if place not in cast_already:
                cast_already.add(place)
                yield tell(
                    fitting[place],
                    "colour",
                    f"the degraded side has {cast[place]:+.0f} levels of {name} against green, usually {usual:+.0f}",
                )


def _clipping(fitting: Pairs) -> Told:
    clipped = np.array([[texture.clipped for texture in m.textures] for m in fitting if m.textures])
    for side, name in enumerate(SIDES):
        more = clipped[:, side] - clipped[:, 1 - side]
        high = {place for place, _ in _outliers(clipped[:, side], 0.15, above_only=True)}
        for place, _ in _outliers(more, 0.15, above_only=True):
            if place not in high:
                continue
            yield tell(
                fitting[place],
                "clipped",
                f"{clipped[place, side]:.0%} of the {name} side are pure black or white, usually "
                f"{np.median(clipped[:, side]):.0%}",
            )


def _clean_sides(fitting: Pairs) -> Told:
    noise = np.array([m.textures[1].noise for m in fitting if m.textures])
    for place, usual in _outliers(np.log2(noise + 0.5), 1.0, above_only=True):
        if noise[place] > 2:
            yield tell(
                fitting[place],
                "noisy-clean",
                f"noise of {noise[place]:.1f} levels, usually {2**usual - 0.5:.1f}",
            )
    edges = np.array([character(m)[2] for m in fitting])
    # An overexposed image has stronger edges as well, but not against its contrast.
    sharp = edges - np.array([character(m)[1] for m in fitting])
    for place, usual in _outliers(edges, 0.3, above_only=True):
        if sharp[place] < np.median(sharp) + 0.1:
            continue
        yield tell(
            fitting[place],
            "blurred-clean",
            f"edges of the degraded side are {2 ** edges[place]:.1f} times those of the clean side, "
            f"usually {2**usual:.1f} times",
        )


def _shifts(fitting: Pairs) -> Told:
    distance = np.array([m.fit.shift.distance for m in fitting if m.fit])
    for place, usual in _outliers(distance, CLEAR_SHIFT, above_only=True, deviations=4):
        fit = fitting[place].fit
        assert fit is not None
        shift = fit.shift
        if shift.distance > 4 * shift.error and shift.likeness > 0.3:
            yield tell(
                fitting[place],
                "shift",
                f"degraded is {abs(shift.dx):.1f} px to the {'right' if shift.dx > 0 else 'left'} and "
                f"{abs(shift.dy):.1f} px {'down' if shift.dy > 0 else 'up'}, usually {usual:.1f} px in all",
                dx=shift.dx,
                dy=shift.dy,
            )
