"""From numbers about single pairs to findings: each pair is judged against the rest of its set.

A set whose degradation is a brightness offset has that offset everywhere; only the pair that differs is told.
Where most pairs have one fault, it is told once, of the set.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from data.doctor.findings import MOST, Finding
from data.doctor.jpeg_blocks import VISIBLE
from data.doctor.outliers import (
    CLEAR_SHIFT,
    DEVIATIONS,
    FEWEST,
    SIDES,
    character,
    median_and_deviation,
    tell,
    unusual_pairs,
)
from data.doctor.pair_stats import NEARLY_BLACK, MeasuredPair
from data.files import FULL_WHITE, white_of
from data.likeness import LEAST_SPREAD, descriptors

CAUSES = (
    "depth-lost", "constant", "identical", "inverted", "exif", "turned", "size", "missing-part", "channel-order",
    "wrong-partner", "swapped",
)  # fmt: skip
"""A pair is told the first of these that it has, and nothing that follows from it."""

FEWEST_FOR_RANGE = 2
"""One pair tells nothing of its set."""

Pairs = Sequence[MeasuredPair]
Told = Iterable[Finding]


def pair_findings(measured: Pairs) -> list[Finding]:
    """Findings about pairs whose two files can be read."""
    whole = [m for m in measured if m.textures is not None]
    fitting = [m for m in whole if m.fit is not None]
    found = [finding for m in whole for finding in _by_itself(m)]
    if fitting:
        found += [*_partners(fitting), *_swapped(fitting), *_colour_order(fitting)]
    found = _first_causes(found)
    ill = {key for finding in found if finding.kind in CAUSES for key in finding.pairs}
    if len(fitting) >= FEWEST:
        found += [finding for finding in unusual_pairs(fitting) if finding.pairs[0] not in ill]
    found += [*_traces(whole), *_range_of_set(whole)]
    if any(finding.kind.startswith("range") for finding in found):
        found = [finding for finding in found if finding.kind != "depth-lost"]
    return [*found, *_small_shift_of_all(fitting, found)]


def _range_of_set(measured: Pairs) -> Told:
    """16-bit files of which none goes beyond a value of fewer bits, on either side or on both."""
    whites = []
    for side in range(2):
        deep = [m.textures[side].largest for m in measured if m.textures and _is_deep(m, side)]
        whites.append(
            white_of(max(deep)) if len(deep) == len(measured) and max(deep, default=0) else FULL_WHITE
        )
    if len(measured) < FEWEST_FOR_RANGE or min(whites) == FULL_WHITE:
        return
    common = max(whites)
    keys = tuple(m.pair.key for m in measured)
    if common < FULL_WHITE:
        said = f"none goes beyond {common} of 65535 ({common.bit_length()} bit): {common} is taken as white"
        yield Finding("range", said, pairs=keys, whole_set=True)
    elif min(whites) <= NEARLY_BLACK:
        dark = SIDES[whites.index(min(whites))]
        said = f"the {dark} side ends at {min(whites)} of 65535 ({min(whites).bit_length()} bit) and is nearly black"
        yield Finding("range-differs", said, pairs=keys, whole_set=True)


def _is_deep(m: MeasuredPair, side: int) -> bool:
    header = m.labels[side].header
    return header is not None and header.stored_bits == 16


def _first_causes(found: list[Finding]) -> list[Finding]:
    first: dict[str, int] = {}
    for finding in found:
        if finding.kind in CAUSES and not finding.milder:
            key, place = finding.pairs[0], CAUSES.index(finding.kind)
            first[key] = min(first.get(key, place), place)
    return [f for f in found if f.kind not in CAUSES or f.milder or CAUSES.index(f.kind) == first[f.pairs[0]]]


def _by_itself(m: MeasuredPair) -> Told:
    """Findings about one pair, without any other."""
    assert m.textures is not None
    scan, clean = m.textures
    for side, texture, label in zip(SIDES, m.textures, m.labels, strict=True):
        if label.header is not None and label.header.stored_bits == 16 and texture.largest <= 255:
            yield tell(m, "depth-lost", f"the largest value of the {side} side is {texture.largest} of 65535")
        if texture.spread < LEAST_SPREAD:
            yield tell(m, "constant", f"the {side} side is one colour ({texture.mean[0]:.0f} of 255)")
    if scan.digest == clean.digest:
        yield tell(m, "identical", "every pixel is equal")
    yield from _turned(m)
    if m.fit is not None and m.fit.part is not None:
        where, share = m.fit.part
        yield tell(m, "missing-part", f"{share:.0%} at the {where} are one colour")


def is_turned(m: MeasuredPair) -> bool:
    """True if the degraded side fits much better after `m.element`."""
    negative = m.fit is not None and m.fit.shift.likeness < -0.5
    return not negative and m.element != 0 and m.turned_likeness > max(0.6, m.likeness + 0.3)


def _turned(m: MeasuredPair) -> Told:
    """One side turned, with or without EXIF to say so; and two sizes."""
    ours, theirs = (label.orientation for label in m.labels)
    negative = m.fit is not None and m.fit.shift.likeness < -0.5
    turned = (
        not negative and m.element != 0 and m.turned_likeness > 0.6 and m.turned_likeness > m.likeness + 0.3
    )
    if ours != theirs and (turned or m.fit is None):
        yield tell(
            m,
            "exif",
            f"EXIF orientation {ours} and {theirs}; shown as EXIF says, the sides do not fit",
        )
    elif turned:
        yield tell(m, "turned", f"{_MOVES[m.element]} would make them fit")
    elif m.fit is None:
        a, b = (label.header for label in m.labels)
        assert a is not None and b is not None
        across, down = b.width / a.width, b.height / a.height
        scale = f", {across:.3g} times as large" if abs(across - down) < 0.01 else ""
        yield tell(m, "size", f"degraded is {a.width}x{a.height}, clean is {b.width}x{b.height}{scale}")
    if ours != theirs and m.fit is not None and not turned:
        yield tell(
            m, "exif", f"EXIF orientation {ours} and {theirs}; other programs may ignore it", milder=True
        )


_MOVES = (
    "nothing", "a quarter turn to the left", "half a turn", "a quarter turn to the right", "a mirror",
    "a mirror and a quarter turn to the left", "an upside-down mirror", "a mirror and a quarter turn to the right",
)  # fmt: skip


def _partners(fitting: Pairs) -> Told:
    """Negatives, and pictures that do not belong together."""
    alike = np.array([m.fit.shift.likeness for m in fitting if m.fit])
    thumbs = [m.thumbs for m in fitting if m.thumbs]
    ours, theirs = (descriptors([pair[side] for pair in thumbs]) for side in (0, 1))
    usual, spread = median_and_deviation(alike)
    for place, m in enumerate(fitting):
        if alike[place] < -0.5 and usual > 0:
            yield tell(m, "inverted", f"correlation {alike[place]:.2f}")
            continue
        enough = len(fitting) >= FEWEST
        below = usual - DEVIATIONS * spread
        low = enough and alike[place] < min(0.5, below, usual - 0.25)
        if not (low or alike[place] < 0.15 or (enough and alike[place] < min(below, usual - 0.08))):
            continue
        others = theirs @ ours[place]
        better = [
            other for other in np.argsort(-others)[:3] if others[other] > max(others[place] + 0.02, 0.4)
        ]
        # A partner that is only somewhat unlike, as the same text in another font, takes a better one to be wrong.
        if better or m.likeness < (0.5 if low else 0.3):
            told = f"correlation {alike[place]:.2f}, in the set usually {usual:.2f}"
            if better:
                told += f"; the clean side of {fitting[better[0]].pair.key} fits better"
            yield tell(m, "wrong-partner", told)


def _swapped(fitting: Pairs) -> Told:
    """Single pairs against the majority; the whole set where the clean sides are the degraded ones."""
    rows = np.array([character(m) for m in fitting])
    middle = np.median(rows, axis=0)
    noise, contrast, edges, *_ = middle
    with_scan, with_clean = np.median([(m.fit.with_scan, m.fit.with_clean) for m in fitting if m.fit], axis=0)
    compressed = np.mean([m.scan_trace > VISIBLE >= m.trace[0] for m in fitting]) > MOST
    # The difference goes with the noise. A JPEG, or a blur, looks as if noise had been taken away.
    noisy = with_clean < -0.3 and abs(with_scan) < 0.25 and edges > -0.2 and not compressed
    faded = noise < -0.5 and contrast > 0 and edges > 0.1
    if noisy or faded:
        for m in fitting:
            yield tell(
                m,
                "swapped",
                "the noise is on the clean side"
                if noisy
                else "the clean side has more noise, less contrast and weaker edges",
            )
        return
    if len(fitting) < FEWEST:
        return
    spread = np.maximum([median_and_deviation(column)[1] for column in rows.T], 0.05)
    strength = float(((middle / spread) ** 2).sum())
    if strength < 6:
        return
    for m, row in zip(fitting, rows, strict=True):
        place = float((row * middle / spread**2).sum()) / strength
        to_usual, to_opposite = (float((((row - sign * middle) / spread) ** 2).sum()) for sign in (1, -1))
        # A clean side with noise is like a swapped pair in much, but not in everything that is sure.
        unmoved = (np.abs(middle) > 3 * spread) & (row * middle > 0.25 * middle**2)
        gap = to_usual - to_opposite
        if -1.6 < place < -0.4 and to_opposite < 0.4 * to_usual and gap > 14 and not unmoved.any():
            yield tell(
                m,
                "swapped",
                f"what tells the sides apart everywhere else is the other way round ({place:+.1f})",
            )


def _colour_order(fitting: Pairs) -> Told:
    for m in fitting:
        assert m.fit is not None and m.textures is not None
        colourful = min(texture.colourful for texture in m.textures) > 2
        if colourful and m.fit.exchanged > 0.6 and m.fit.exchanged > m.fit.ordered + 0.3:
            yield tell(
                m,
                "channel-order",
                f"colours agree to {m.fit.exchanged:.2f} with red and blue exchanged, else to {m.fit.ordered:.2f}",
            )


def _small_shift_of_all(fitting: Pairs, found: Told) -> Told:
    told = {finding.pairs[0] for finding in found if finding.kind == "shift"}
    rest = [m.fit.shift for m in fitting if m.fit and m.pair.key not in told]
    sure = [shift.distance for shift in rest if shift.distance > 4 * shift.error and shift.likeness > 0.3]
    if len(sure) > max(MOST * len(rest), FEWEST) and np.median(sure) > 0.1:
        yield Finding(
            "shift",
            f"{len(sure)} of {len(rest)} pairs are shifted, by {np.median(sure):.2f} px (median), at most "
            f"{max(sure):.2f}",
            whole_set=True,
            milder=bool(np.median(sure) < CLEAR_SHIFT),
        )


def _traces(whole: Pairs) -> Told:
    for m in whole:
        trace, quality = m.trace
        if trace > VISIBLE:
            yield tell(
                m,
                "jpeg-clean",
                f"it was a JPEG of quality {quality} or so",
                milder=quality >= 95,
                quality=quality,
            )
