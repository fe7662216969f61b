"""Numbers about one pair: how its two sides fit together. Nothing here knows of the rest of the set."""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.cropping import dihedral
from data.doctor.file_checks import (
    Label,
    Texture,
    central,
    measure_texture,
    read_label,
    read_pixels,
    smooth,
)
from data.doctor.inventory import PairFiles
from data.doctor.jpeg_blocks import jpeg_trace
from data.files import FULL_WHITE, Pixels, stretched, white_of, with_channels
from data.likeness import (
    NO_CELLS,
    SMALLEST,
    THUMB,
    Shift,
    band_pass,
    correlation,
    measure_shift,
    paper_cells,
    thumbnail,
    to_gray,
)

_TRACE_SIDE = 256
"""JPEG traces are looked for in a square of at most this side."""
_PATCHY = 0.5
_FITS, _LARGE = 0.7, 256
NEARLY_BLACK = 4095
"""In files of 16 bits."""


@dataclass(frozen=True)
class Fit:
    """Fit of two sides of one size; brightness in levels of 0 to 255, degraded minus clean."""

    shift: Shift
    offset: float
    colour: tuple[float, float]
    """Excess by which red and blue are brighter than green on the degraded side."""
    ordered: float
    exchanged: float
    """Correlation of the colours as they are, and with red and blue of one side exchanged."""
    dark: float
    bright: float
    """As `offset`, over the darkest and over the brightest tenth of the clean side."""
    with_scan: float
    with_clean: float
    """Correlation of the fine difference, degraded minus clean, with the fine structure of either side: noise goes
    with the side that has it, blur against both."""
    part: tuple[str, float] | None
    """Where one side ends while the other goes on: what, and what share of the image."""


@dataclass(frozen=True)
class MeasuredPair:
    """All that is known of a pair after its files have been read once."""

    pair: PairFiles
    labels: tuple[Label, Label]
    """Of the degraded and the clean side, as everything in twos here."""
    textures: tuple[Texture, Texture] | None = None
    fit: Fit | None = None
    likeness: float = 0.0
    """Correlation of the small pictures as they are."""
    element: int = 0
    turned_likeness: float = 0.0
    """Which symmetry of the square makes the degraded side most like the clean one, and how much."""
    trace: tuple[float, int] = (0.0, 100)
    """Of JPEG on the clean side, and its quality."""
    scan_trace: float = 0.0
    """Of JPEG on the degraded side, looked for only where the clean side is the one with the noise."""
    thumbs: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    """Both sides as THUMB x THUMB gray pictures."""
    paper: NDArray[np.uint8] = field(default_factory=lambda: NO_CELLS)
    """The brightest of the smoothed degraded side in cells of a power of two of pixels: what is behind the ink."""
    telling: bool = True
    """True if the images are large enough to be told from others by their small pictures."""


def measure_pair(pair: PairFiles) -> MeasuredPair:
    """Reads both files. Whatever is wrong with them is part of the result."""
    with warnings.catch_warnings(action="ignore"):
        labels = (read_label(pair.scan), read_label(pair.clean))
        images: list[Pixels] = []
        for place, path in enumerate((pair.scan, pair.clean)):
            if labels[place].problem is None:
                read = read_pixels(path)
                if isinstance(read, tuple):
                    labels = (Label(read), labels[1]) if place == 0 else (labels[0], Label(read))
                else:
                    images.append(read)
    if len(images) < 2:
        return MeasuredPair(pair, labels)
    largest = int(images[0].max()), int(images[1].max())
    if all(label.header is not None and label.header.stored_bits == 16 for label in labels):
        white = white_of(max(largest))
        # Values of 12 bits and fewer would all be measured as black.
        images = [stretched(image, white if white <= NEARLY_BLACK else FULL_WHITE) for image in images]
    scan, clean = images
    grays = to_gray(scan), to_gray(clean)
    thumbs = thumbnail(grays[0]), thumbnail(grays[1])
    telling = min(*scan.shape[:2], *clean.shape[:2]) >= SMALLEST
    fit = _fit(scan, clean, *grays) if scan.shape[:2] == clean.shape[:2] else None
    # Only pairs that hardly fit as they are can be meant to be turned.
    fits = fit is not None and fit.shift.likeness > _FITS
    likeness, element, turned = _likeness(*(thumbs if fits else (thumbnail(gray, _LARGE) for gray in grays)))
    noise_is_clean = fit is not None and fit.with_clean < -0.3 and abs(fit.with_scan) < 0.3
    return MeasuredPair(
        pair,
        labels,
        (
            replace(measure_texture(scan), largest=largest[0]),
            replace(measure_texture(clean), largest=largest[1]),
        ),
        fit,
        likeness,
        element,
        turned,
        _trace(grays[1]),
        _trace(grays[0])[0] if noise_is_clean else 0.0,
        thumbs,
        paper_cells(grays[0]) if telling else NO_CELLS,
        telling,
    )


def _trace(gray: NDArray[np.float32]) -> tuple[float, int]:
    return jpeg_trace(central(gray)[:_TRACE_SIDE, :_TRACE_SIDE].round().astype(np.uint8))


def _likeness(scan: NDArray[np.uint8], clean: NDArray[np.uint8]) -> tuple[float, int, float]:
    """Correlation as they are, and the symmetry of `scan` that is most like `clean`, with its correlation."""
    ours, theirs = (band_pass(thumb.astype(np.float32)) for thumb in (scan, clean))
    all_ways = [correlation(np.ascontiguousarray(dihedral(ours, element)), theirs) for element in range(8)]
    best = int(np.argmax(all_ways))
    return all_ways[0], best, all_ways[best]


def _fit(scan: Pixels, clean: Pixels, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Fit:
    small = [
        cv2.resize(with_channels(image, 3), (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)
        / (1 if image.dtype == np.uint8 else 257)
        for image in (scan, clean)
    ]
    difference = (small[0] - small[1]).mean((0, 1))
    middles = central(ours), central(theirs)
    thin = [middle[::3, ::3] for middle in middles]
    low, high = np.percentile(thin[1], [10, 90])
    away = thin[0] - thin[1]
    fine = [middle - smooth(middle) for middle in middles]
    chroma = [np.stack([image[..., 0] - image[..., 1], image[..., 2] - image[..., 1]]) for image in small]
    return Fit(
        shift=measure_shift(middles[1], middles[0]),
        offset=float(ours.mean() - theirs.mean()),
        colour=(float(difference[0] - difference[1]), float(difference[2] - difference[1])),
        ordered=_colours_agree(*chroma),
        exchanged=_colours_agree(chroma[0][::-1], chroma[1]),
        dark=float(away[thin[1] <= low].mean()),
        bright=float(away[thin[1] >= high].mean()),
        with_scan=correlation(fine[0] - fine[1], fine[0]),
        with_clean=correlation(fine[0] - fine[1], fine[1]),
        part=_missing_part(ours, theirs, "degraded") or _missing_part(theirs, ours, "clean"),
    )


def _colours_agree(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlation of colour differences around their means: a cast does not count."""
    ours, theirs = (np.ascontiguousarray(side - side.mean((1, 2), keepdims=True)) for side in (one, other))
    return correlation(ours, theirs)


def _missing_part(
    ending: NDArray[np.float32], going_on: NDArray[np.float32], which: str
) -> tuple[str, float] | None:
    """A border of one colour on one side, where the other side is as busy as elsewhere."""
    for turns, place in enumerate(("bottom", "right", "top", "left")):
        # Each turn against the clock brings the next border to the bottom.
        one, other = np.rot90(ending, -turns), np.rot90(going_on, -turns)
        flat = np.ptp(one, axis=1) == 0
        rows = len(flat) if flat.all() else int(np.argmin(flat[::-1]))
        if not max(len(flat) // 16, 8) <= rows < len(flat):
            continue
        if np.ptp(one[-rows:]) > 0:
            continue
        busy = band_pass(np.ascontiguousarray(other))
        if busy[-rows:].std() > _PATCHY * busy[:-rows].std() and _edge_there(one, other, rows):
            return f"{place} of the {which} side", rows / len(flat)
    return None


def _edge_there(one: NDArray[np.float32], other: NDArray[np.float32], rows: int) -> bool:
    """True if the sides are much less alike in the last `rows` rows than before them."""
    within = correlation(
        *(np.ascontiguousarray(band_pass(np.ascontiguousarray(side))[:-rows]) for side in (one, other))
    )
    return within > _PATCHY
