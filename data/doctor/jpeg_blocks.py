"""Traces of JPEG in an image, whatever format it has now."""

import numpy as np
from numpy.typing import NDArray

from data.files import jpeg_round_trip

QUALITIES = (50, 65, 75, 80, 85, 90, 95)
VISIBLE = 0.15
"""From this trace on an image counts as a JPEG. tests/benchmarks/check.py: others stay below 0.1."""
_HALF_A_BLOCK = 4


def jpeg_trace(gray: NDArray[np.uint8]) -> tuple[float, int]:
    """Strength of JPEG blocks in an (H, W) image, 0 to nearly 1, and the quality it had, within 10 or so.

    A JPEG that goes through JPEG again at its old quality stays nearly as it is, as long as its blocks lie
    where they lay; half a block beside it changes like any other image. (After the ghosts of Farid, IEEE TIFS
    2009.)
    """
    if min(gray.shape) < 5 * _HALF_A_BLOCK:
        return 0.0, 100
    aligned, beside = gray[..., None], np.ascontiguousarray(gray[_HALF_A_BLOCK:, _HALF_A_BLOCK:, None])
    traces = [1 - _change(aligned, quality) / _change(beside, quality) for quality in QUALITIES]
    strongest = max(traces)
    # Higher qualities than the true one show it too, since coarse steps are multiples of fine ones.
    if strongest <= 0:
        return 0.0, 100
    return strongest, next(q for q, trace in zip(QUALITIES, traces, strict=True) if trace >= strongest / 2)


def _change(gray: NDArray[np.uint8], quality: int) -> float:
    """Mean absolute change, in levels; a little more, so that unchanged images compare as equal."""
    return float(np.abs(jpeg_round_trip(gray, quality).astype(np.int16) - gray).mean()) + 0.01
