"""Where a training crop is cut and how it is turned: pure functions on positions and arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data.images import Pixels


class Augmentation(BaseModel):
    """Which exact symmetries of the square a training crop may be turned by; each with equal chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flips: bool = Field(True, description="mirror left-right and top-bottom")
    rotations: bool = Field(
        True, description="turn by 90, 180 or 270 degrees (pixels are moved, never resampled)"
    )

    def elements(self) -> tuple[int, ...]:
        """The elements that `dihedral` may be called with: closed under composition, the identity first."""
        if self.flips and self.rotations:
            return tuple(range(8))
        if self.rotations:
            return (0, 1, 2, 3)
        return (0, 2, 4, 6) if self.flips else (0,)


class Crop(NamedTuple):
    """One square to cut from image `image`: its first row and column, and how `dihedral` turns it."""

    image: int
    top: int
    left: int
    element: int


def offset_bounds(sizes: NDArray[np.int64], patch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last offset (both included) of a crop of `patch` along sides of these sizes.

    Where a side is smaller than the patch the offsets are negative or zero: the whole side is in every
    crop, at each place it can have there, and the rest is filled by reflection.
    """
    room = sizes - patch
    return np.minimum(room, 0), np.maximum(room, 0)


def cut(image: Pixels, top: int, left: int, patch: int) -> Pixels:
    """The square of `patch` pixels at (top, left) of a (C, H, W) image; a view where it lies inside.

    Beyond the border the image goes on as its reflection (the border pixel is not repeated).
    """
    height, width = image.shape[-2:]
    if top >= 0 and left >= 0 and top + patch <= height and left + patch <= width:
        return image[:, top : top + patch, left : left + patch]
    rows, columns = reflected(top, patch, height), reflected(left, patch, width)
    return image[:, rows[:, None], columns]


def reflected(start: int, count: int, size: int) -> NDArray[np.int64]:
    """Indices into a side of `size` pixels for `count` positions from `start`, reflected at both ends."""
    if size == 1:
        return np.zeros(count, np.int64)
    period = 2 * (size - 1)
    position = np.arange(start, start + count) % period
    return np.minimum(position, period - position)


def dihedral(image: Pixels, element: int) -> Pixels:
    """One of the eight symmetries of the square, as a view of a (..., H, W) array.

    `element % 4` quarter turns against the clock (as numpy.rot90), after a left-right mirror from
    element 4 on.
    """
    if element >= 4:
        image = image[..., ::-1]
    turns = element % 4
    if turns == 1:
        return image.swapaxes(-1, -2)[..., ::-1, :]
    if turns == 2:
        return image[..., ::-1, ::-1]
    if turns == 3:
        return image.swapaxes(-1, -2)[..., ::-1]
    return image
