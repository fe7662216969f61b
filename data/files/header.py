"""What an image file says of itself before its pixels are decoded, and how large it may be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""Whole numbers of type uint8 or uint16, 0 is black."""

MOST_PIXELS = 1_000_000_000
"""A scan of the largest sheets has fewer."""
LARGE, PIXELS_PER_BYTE = 100_000_000, 100_000
"""No picture beyond so many pixels is compressed to so few bytes, but for blank ones and attacks."""


class DataError(ValueError):
    """Something about the user's images that the user can mend: where, what was found, what is allowed."""


@dataclass(frozen=True)
class Header:
    """Facts of an image file before its pixels are decoded. Height and width are as shown (EXIF applied)."""

    height: int
    width: int
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    """Of the pixels as they are read."""
    simplified: bool
    """True if palette, transparency or further pages are lost when read as a viewer shows it."""
    stored_bits: int = 8
    """Of a sample in the file: 16-bit files alone may hold values that use a part of their range."""
    note: str = ""
    """How samples that are not whole numbers become pixels; empty for usual files."""
    inks: bool = False
    """True for CMYK, which is read as RGB."""
    losses: tuple[str, ...] = ()
    """What of the file is no longer in its pixels, for whoever writes them anew."""


def check_size(path: Path, height: int, width: int) -> None:
    """Raises DataError for an image that promises more pixels than any scan has, or than its file can hold."""
    pixels, size = height * width, path.stat().st_size
    if pixels > MOST_PIXELS or (pixels > LARGE and pixels > PIXELS_PER_BYTE * size):
        raise DataError(
            f"{path}: {width} x {height} pixels in a file of {size:,} bytes; "
            f"allowed are {MOST_PIXELS // 10**6:,} megapixels, and {PIXELS_PER_BYTE:,} pixels a byte"
        )


def check_memory(path: Path, height: int, width: int, pixel_bytes: int) -> None:
    """Raises DataError where the pixels, held twice while they are decoded, do not fit into memory."""
    need, free = 2 * height * width * pixel_bytes, psutil.virtual_memory().available
    if need > free:
        raise DataError(
            f"{path}: {width} x {height} pixels need {need / 1e9:.1f} GB of memory to be decoded, "
            f"{free / 1e9:.1f} GB are free"
        )
