"""One image file on its own: whether it can be read, what it promises, what its pixels are like."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import DataError, Header, Pixels, decode_image, open_image, reading
from data.likeness import pixel_digest, to_gray

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
}
WINDOW = 512
"""Texture is measured in the central square of at most this side."""
_MEAN_OF_SMALLER = 0.4736
"""Mean of the smaller 70 % of |z| for z normal: sqrt(2 / pi) (1 - exp(-q^2 / 2)) / 0.7, q = 1.0364."""


@dataclass(frozen=True)
class Label:
    """A file as it describes itself; nothing of its pixels."""

    problem: tuple[str, str] | None
    """Kind of fault and what was found, for a file that cannot be read."""
    header: Header | None = None
    format: str = ""
    orientation: int = 1
    """EXIF, 1 (upright) to 8."""
    profile: str = ""
    """Digest of the ICC profile, empty without one."""


@dataclass(frozen=True)
class Texture:
    """Numbers about one image, in levels of 0 to 255 whatever its depth."""

    mean: tuple[float, ...]
    """Of each channel."""
    spread: float
    """Standard deviation of the gray image."""
    contrast: float
    """From the darkest to the brightest percent of the gray pixels."""
    noise: float
    """Standard deviation of the finest noise, from the smaller ones of the finest diagonal details."""
    fine: float
    """Standard deviation of all that a blur of one pixel takes away: noise and detail."""
    edges: float
    """The strength that one gradient in a hundred exceeds, after a blur against the noise."""
    clipped: float
    """Share of gray pixels at either end of the range."""
    largest: int
    """Largest value, as stored."""
    colourful: float
    """Root mean square difference between the channels."""
    digest: str
    """Of shape and pixels."""


def read_label(path: Path) -> Label:
    """Reads the header alone."""
    problem = _at_once(path)
    if problem:
        return Label(problem)
    try:
        with open_image(path) as file, reading(path):
            profile = file.profile(0) or b""
            return Label(
                None,
                file.header(0),
                file.format,
                file.orientation(0),
                hashlib.blake2b(profile, digest_size=8).hexdigest() if profile else "",
            )
    except DataError as error:
        return Label(_problem(path, str(error), has_header=False))


def read_pixels(path: Path) -> Pixels | tuple[str, str]:
    """The pixels as `decode` gives them, or what keeps them from being read."""
    try:
        return decode_image(path)
    except DataError as error:
        return _problem(path, str(error), has_header=True)


def measure_texture(image: Pixels) -> Texture:
    """Of an (H, W, 1 or 3) image of 8 or 16 bit."""
    scale = 1 if image.dtype == np.uint8 else 257
    shown = to_gray(image)
    middle = central(shown)
    low, high = np.percentile(middle[::2, ::2], [1, 99])
    thin = image[:: max(image.shape[0] // 256, 1), :: max(image.shape[1] // 256, 1)].astype(np.float32)
    return Texture(
        mean=tuple(float(mean) / scale for mean in cv2.mean(image)[: image.shape[2]]),
        spread=float(shown.std()),
        contrast=float(high - low),
        noise=noise(middle),
        fine=float((middle - smooth(middle)).std()),
        edges=_edges(middle),
        clipped=float(((shown <= 0) | (shown >= 255)).mean()),
        largest=int(image.max()),
        colourful=float(np.sqrt(((thin - thin.mean(2, keepdims=True)) ** 2).mean())) / scale,
        digest=pixel_digest(image),
    )


def central(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle, at most WINDOW x WINDOW; it begins where a block of 8 x 8 pixels does."""
    top, left = (max(size - WINDOW, 0) // 16 * 8 for size in plane.shape)
    return np.ascontiguousarray(plane[top : top + WINDOW, left : left + WINDOW])


def noise(plane: NDArray[np.float32]) -> float:
    """Standard deviation of white noise in an (H, W) image, from the smaller 70 % of its details.

    As Donoho and Johnstone's median of details, but a mean: the median of whole numbers jumps.
    """
    height, width = (size // 2 * 2 for size in plane.shape)
    even = plane[:height, :width]
    details = (even[::2, ::2] - even[::2, 1::2] - even[1::2, ::2] + even[1::2, 1::2]) / 2
    if not details.size:
        return 0.0
    smaller = np.sort(np.abs(details).ravel())[: max(round(0.7 * details.size), 1)]
    return float(smaller.mean()) / _MEAN_OF_SMALLER


def _edges(plane: NDArray[np.float32]) -> float:
    blurred = smooth(plane)
    right, down = np.diff(blurred, axis=1)[:-1], np.diff(blurred, axis=0)[:, :-1]
    return float(np.percentile(np.hypot(right, down)[::2, ::2], 99)) if right.size and down.size else 0.0


def smooth(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """After a blur of one pixel."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT))


def _at_once(path: Path) -> tuple[str, str] | None:
    """Faults that show before any reader has tried."""
    try:
        if not path.is_file():
            return "unreadable", "the link leads nowhere" if path.is_symlink() else "not a file"
        if path.stat().st_size == 0:
            return "empty", "0 bytes"
        if not os.access(path, os.R_OK):
            return "unreadable", "no permission to read it"
    except (OSError, RuntimeError) as error:
        return "unreadable", str(error)
    return None


def _problem(path: Path, text: str, has_header: bool) -> tuple[str, str]:
    """Kind and text for what `decode` said."""
    said = text.removeprefix(f"{path}: ")
    if any(words in said for words in ("pixels of type", "not supported", "allowed are", "no numbers")):
        return "unsupported", said
    if "not a readable image" in said:
        return "unreadable", f"{said}; it begins with {_beginning(path)!r}"
    return ("truncated" if has_header or "cut short" in said else "unreadable"), said


def _beginning(path: Path) -> str:
    """The first bytes, as letters where they are some: web pages saved as pictures tell themselves."""
    try:
        with path.open("rb") as file:
            return file.read(16).decode("ascii", "replace").replace("\ufffd", "?")
    except OSError:
        return ""
