"""Shift of one image against another, to a fraction of a pixel."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.float32]
"""(H, W) of any range."""

FINE, COARSE = 1.0, 4.0
"""Standard deviations (pixels) of the blurs whose difference is compared: no noise, no stains."""
MARGIN = 8
REACH = 0.125
"""Shifts are looked for up to this share of a side."""
_ROUNDS, _SETTLED = 3, 0.02


@dataclass(frozen=True)
class Shift:
    """`moved` shows at (x + dx, y + dy) what `fixed` shows at (x, y)."""

    dx: float
    dy: float
    error: float
    """Standard error of the distance, in pixels; infinite where the images do not say."""
    likeness: float
    """Correlation of the band-passed images once the shift is undone, -1 to 1."""

    @property
    def distance(self) -> float:
        return float(np.hypot(self.dx, self.dy))


def measure_shift(fixed: Gray, moved: Gray) -> Shift:
    """The shift between two images of one shape.

    Whole pixels come from phase correlation. The rest is Lucas and Kanade's least squares with a free gain:
    its gradients are those of `fixed`, which should be the clean side, since noise in a regressor
    would pull the result towards zero.
    """
    height, width = fixed.shape
    if min(height, width) < 4 * MARGIN:
        return Shift(0.0, 0.0, float("inf"), correlation(fixed, moved))
    one, other = band_pass(fixed), band_pass(moved)
    candidates = [(0, 0), _whole_pixels(one, other)]
    dx, dy = max(candidates, key=lambda move: abs(correlation(*_overlap(one, other, *move))))
    ours, theirs = _overlap(one, other, dx, dy)
    fine_x, fine_y, error, likeness = _fraction(ours, theirs)
    return Shift(dx + fine_x, dy + fine_y, error, likeness)


def band_pass(gray: Gray) -> Gray:
    """The difference of two blurs: edges and texture, without the finest noise and without shading."""
    fine = cv2.GaussianBlur(gray, (0, 0), FINE, borderType=cv2.BORDER_REFLECT)
    return np.asarray(fine - cv2.GaussianBlur(gray, (0, 0), COARSE, borderType=cv2.BORDER_REFLECT))


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's, -1 to 1; 0 where one of them is constant."""
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.vdot(a, a)) * np.sqrt(np.vdot(b, b)))
    return float(np.vdot(a, b)) / scale if scale > 1e-6 else 0.0


def _whole_pixels(one: Gray, other: Gray) -> tuple[int, int]:
    """Where the phase correlation is highest, within REACH."""
    height, width = one.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    product = np.conj(np.fft.rfft2(one * window)) * np.fft.rfft2(other * window)
    peaks = np.fft.irfft2(product / np.maximum(np.abs(product), 1e-9), s=one.shape)
    rows, columns = max(int(height * REACH), 1), max(int(width * REACH), 1)
    peaks[rows + 1 : -rows] = -1
    peaks[:, columns + 1 : -columns] = -1
    row, column = divmod(int(peaks.argmax()), width)
    return (column if column <= columns else column - width), (row if row <= rows else row - height)


def _overlap(one: Gray, other: Gray, dx: int, dy: int) -> tuple[Gray, Gray]:
    """The parts that show the same where `other` is shifted by (dx, dy)."""

    def part(image: Gray, left: int, top: int) -> Gray:
        height, width = image.shape
        return image[max(top, 0) : height + min(top, 0), max(left, 0) : width + min(left, 0)]

    return part(one, -dx, -dy), part(other, dx, dy)


def _fraction(fixed: Gray, moved: Gray) -> tuple[float, float, float, float]:
    """(dx, dy, standard error, likeness) of a shift below about one pixel."""
    # After a blur of FINE every second pixel says nearly as much as all.
    inside = (slice(MARGIN, -MARGIN, 2), slice(MARGIN, -MARGIN, 2))
    dx = dy = 0.0
    error = float("inf")
    ours: Gray = fixed
    theirs = moved[inside].astype(np.float64).ravel()
    size = (fixed.shape[1], fixed.shape[0])
    for _ in range(_ROUNDS):
        matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        ours = np.asarray(
            cv2.warpAffine(fixed, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT),
            np.float32,
        )
        down, right = np.gradient(ours, axis=0), np.gradient(ours, axis=1)
        basis = np.stack([plane[inside].ravel() for plane in (ours, -right, -down)]).astype(np.float64)
        normal = basis @ basis.T
        if np.linalg.cond(normal) > 1e10:
            break
        gain, x, y = np.linalg.solve(normal, basis @ theirs)
        if abs(gain) < 1e-3:
            break
        residual = theirs - np.array([gain, x, y]) @ basis
        # A blurred image has fewer independent pixels than pixels: one for each blur of FINE, a quarter is looked at.
        variance = residual.var() * np.pi * FINE**2
        covariance = np.linalg.inv(normal) * variance / gain**2
        error = float(np.sqrt(covariance[1, 1] + covariance[2, 2]))
        step_x, step_y = np.clip([x / gain, y / gain], -1, 1)
        dx, dy = float(np.clip(dx + step_x, -2, 2)), float(np.clip(dy + step_y, -2, 2))
        if max(abs(step_x), abs(step_y)) < _SETTLED:
            break
    return dx, dy, error, correlation(np.ascontiguousarray(ours[inside]), np.ascontiguousarray(moved[inside]))
