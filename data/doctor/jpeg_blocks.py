"""Traces of JPEG in an image, whatever format it has now."""

import numpy as np
from numpy.typing import NDArray

from data.files import jpeg_round_trip

QUALITIES = (50, 65, 75, 80, 85, 90, 95)
VISIBLE = 0.15
"""From this trace on an image counts as a JPEG. tests/benchmarks/check.py: others stay below 0.1."""
_BLOCK, _HALF_A_BLOCK = 8, 4
_FLAT = 8
"""Levels between the darkest and the brightest pixel of a block without detail."""
_FEWEST = 8
"""Fewer blocks with detail than this tell nothing."""
_SURE = 4.0
"""So many standard errors are no chance."""


def jpeg_trace(gray: NDArray[np.uint8]) -> tuple[float, int]:
    """Strength of JPEG blocks in an (H, W) image, 0 to nearly 1, and the quality it had, within 10 or so.

    A JPEG that goes through JPEG again at its old quality stays nearly as it is, as long as its blocks lie
    where they lay; half a block beside it changes like any other image. (After the ghosts of Farid, IEEE TIFS
    2009.)
    """
    if min(gray.shape) < 5 * _HALF_A_BLOCK:
        return 0.0, 100
    aligned, beside = gray[..., None], np.ascontiguousarray(gray[_HALF_A_BLOCK:, _HALF_A_BLOCK:, None])
    traces = [_trace(_changes(aligned, quality), _changes(beside, quality)) for quality in QUALITIES]
    strongest = max(traces)
    # Higher qualities than the true one show it too, since coarse steps are multiples of fine ones.
    if strongest <= 0:
        return 0.0, 100
    return strongest, next(q for q, trace in zip(QUALITIES, traces, strict=True) if trace >= strongest / 2)


def _trace(aligned: NDArray[np.float64], beside: NDArray[np.float64]) -> float:
    """By what share blocks change less where they lay; 0 where that may be chance.

    On drawn pages, bars often end where a block does, so that there are few blocks with detail, which change less.
    """
    if len(aligned) < max(_FEWEST, len(beside) / 2):
        return 0.0
    gain = float(beside.mean() - aligned.mean())
    error = float(np.hypot(aligned.std() / len(aligned) ** 0.5, beside.std() / len(beside) ** 0.5))
    # A little more than the change, so that unchanged images compare as equal.
    return gain / (float(beside.mean()) + 0.01) if gain > _SURE * error else 0.0


def _changes(gray: NDArray[np.uint8], quality: int) -> NDArray[np.float64]:
    """Mean absolute change of each block with detail, in levels. A flat block stays as it is, wherever it lies."""
    height, width = (size // _BLOCK * _BLOCK for size in gray.shape[:2])
    change = np.abs(jpeg_round_trip(gray, quality).astype(np.int16) - gray)
    blocks, changes = (
        plane[:height, :width, 0].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
        for plane in (gray, change)
    )
    detailed = np.ptp(blocks, axis=(1, 3)) > _FLAT
    return np.asarray(changes.mean((1, 3))[detailed], np.float64)
