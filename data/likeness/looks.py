"""What an image is compared by with all others, and what images have in common."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import Pixels, with_channels
from data.likeness.near_duplicates import background_groups, equal_groups, merge_groups, near_duplicate_groups

THUMB = 64
SMALLEST = 32
"""An image with fewer pixels than this along a side is too small for much."""
LEAST_SPREAD = 0.5
"""An image with a smaller standard deviation (levels of 255) is one colour, and belongs to nobody."""
_CELLS = 32

Groups = NDArray[np.int64]
NO_CELLS: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True)
class Look:
    """One image, in what tells whether it belongs with another."""

    digest: str | None
    """Of shape and pixels; None for an image of one colour."""
    thumb: NDArray[np.uint8]
    """As a THUMB x THUMB gray picture; black for an image too small to be told by it."""
    paper: NDArray[np.uint8] = field(default_factory=lambda: NO_CELLS)
    """See `paper_cells`; empty where backgrounds are not compared."""


@dataclass(frozen=True)
class Links:
    """Group numbers of pairs, for each way in which images can belong together."""

    same_scan: Groups
    same_clean: Groups
    nearly_scan: Groups
    nearly_clean: Groups
    background: Groups

    def alike(self) -> Groups:
        """Pairs with a side that is the same or nearly the same."""
        return merge_groups([self.same_scan, self.same_clean, self.nearly_scan, self.nearly_clean])

    def all(self) -> Groups:
        """Pairs that must stay on one side of a split."""
        return merge_groups([self.alike(), self.background])


def look_at(image: Pixels, *, background: bool) -> Look:
    """Of an (H, W, 1 or 3) image of 8 or 16 bit. `background`: compare what is behind the ink, too."""
    gray = to_gray(image)
    telling = min(gray.shape) >= SMALLEST
    return Look(
        pixel_digest(image) if gray.std() > LEAST_SPREAD else None,
        thumbnail(gray) if telling else BLANK,
        paper_cells(gray) if telling and background else NO_CELLS,
    )


def link_pairs(scans: Sequence[Look], cleans: Sequence[Look]) -> Links:
    """What pairs have in common. Backgrounds are those of the degraded sides."""
    return Links(
        equal_groups([look.digest for look in scans]),
        equal_groups([look.digest for look in cleans]),
        near_duplicate_groups([look.thumb for look in scans]),
        near_duplicate_groups([look.thumb for look in cleans]),
        background_groups([look.paper for look in scans]),
    )


def pixel_digest(image: Pixels) -> str:
    """Of shape and pixels."""
    content = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def to_gray(image: Pixels) -> NDArray[np.float32]:
    """(H, W) of 0 to 255."""
    plane = with_channels(image, 1)[..., 0]
    return np.asarray(plane, np.float32) / (1 if image.dtype == np.uint8 else np.float32(257))


def thumbnail(gray: NDArray[np.float32], side: int = THUMB) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)).round().astype(np.uint8)


def paper_cells(gray: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The brightest of the smoothed image in cells of a power of two of pixels: what is behind the ink."""
    cell = 2 ** max(round(np.log2(max(gray.shape) / _CELLS)), 2)
    smooth = cv2.GaussianBlur(gray, (0, 0), cell / 8, borderType=cv2.BORDER_REFLECT)
    height, width = (size // cell for size in gray.shape)
    cells = smooth[: height * cell, : width * cell].reshape(height, cell, width, cell)
    return cells.max((1, 3)).round().astype(np.uint8) if cells.size else NO_CELLS


BLANK: NDArray[np.uint8] = np.zeros((THUMB, THUMB), np.uint8)
