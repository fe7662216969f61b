"""Where a training crop is cut and how it is turned: pure functions on positions and arrays."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import Pixels


class Crop(NamedTuple):
    """One square to cut from image `image`: first row and column, side, and how `dihedral` turns it.

    Where the side is not that of the patch, the square is resized to it.
    """

    image: int
    top: int
    left: int
    side: int
    element: int


def offset_bounds(
    sizes: NDArray[np.int64], sides: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last offset (both included) of squares of these sides along images of these sizes.

    Where an image is smaller than the square the offsets are negative or zero: all of it is in every
    square, at each place it can have there, and the rest is filled by reflection.
    """
    room = sizes - sides
    return np.minimum(room, 0), np.maximum(room, 0)


def cut_crop(image: Pixels, top: int, left: int, side: int) -> Pixels:
    """The square of `side` pixels at (top, left) of a (C, H, W) image; a view where it lies inside.

    Beyond the border the image goes on as its reflection (the border pixel is not repeated).
    """
    height, width = image.shape[-2:]
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return image[:, top : top + side, left : left + side]
    rows, columns = reflected(top, side, height), reflected(left, side, width)
    return image[:, rows[:, None], columns]


def reflected(start: int, count: int, size: int) -> NDArray[np.int64]:
    """Indices into a side of `size` pixels for `count` positions from `start`, reflected at both ends."""
    if size == 1:
        return np.zeros(count, np.int64)
    period = 2 * (size - 1)
    position = np.arange(start, start + count) % period
    return np.minimum(position, period - position)


def resize_crop(square: Pixels, side: int) -> Pixels:
    """A (C, S, S) image with `side` rows and columns: area means where they are fewer, linear where more."""
    before = square.shape[-1]
    if side == before:
        return square
    method = cv2.INTER_AREA if side < before else cv2.INTER_LINEAR
    return np.stack([cv2.resize(plane, (side, side), interpolation=method) for plane in square])


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
