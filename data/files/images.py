"""Single image files: read as a viewer shows them, written as PNG, turned into tensors."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

log = logging.getLogger("restune.data")

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")

Pixels = NDArray[Any]
"""Whole numbers of type uint8 or uint16, 0 is black."""

# Pillow takes 90 megapixels for an attack; a scan of a large sheet has more. Twice this many are refused.
Image.MAX_IMAGE_PIXELS = 500_000_000

_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258


class DataError(ValueError):
    """Something about the user's images that the user can mend: where, what was found, what is allowed."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A degraded image and its clean original: both (C, H, W), or batched (B, C, H, W), float32.

    Clean values lie in [0, 1]; degraded ones may leave it where noise is kept unclipped.
    """

    degraded: Tensor
    clean: Tensor

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Pair":
        return Pair(
            self.degraded.to(device, non_blocking=non_blocking),
            self.clean.to(device, non_blocking=non_blocking),
        )

    def parts(self, count: int) -> Iterator["Pair"]:
        """The batch in up to `count` parts of nearly equal size."""
        for degraded, clean in zip(
            self.degraded.tensor_split(min(count, len(self.degraded))),
            self.clean.tensor_split(min(count, len(self.clean))),
            strict=True,
        ):
            yield Pair(degraded, clean)


@dataclass(frozen=True)
class Header:
    """Facts of an image file before its pixels are decoded. Height and width are as shown (EXIF applied)."""

    height: int
    width: int
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    simplified: bool
    """True if palette, transparency or further pages are lost when read as a viewer shows it."""


def read_header(path: Path) -> Header:
    """Size and pixel type of an image file; decodes no pixels. Raises DataError for what is no image."""
    try:
        with open_image(path) as image:
            return header_of(image, path)
    except DataError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, ... for broken files.
    except Exception as error:
        raise DataError(cannot_read(path, error)) from error


def decode_image(path: Path) -> Pixels:
    """The pixels of an image file, (H, W, 1 or 3) in RGB order, uint8 or (for 16-bit files) uint16.

    Palette colours are looked up, transparency is laid on white, EXIF rotation is applied, and of
    several pages the first is taken: what an image viewer shows. Raises DataError for unreadable
    and truncated files.
    """
    try:
        with open_image(path) as image:
            header = header_of(image, path)
            pixels = on_white(layers(image, path, header))
    except DataError:
        raise
    except Exception as error:
        raise DataError(cannot_read(path, error)) from error
    return np.ascontiguousarray(pixels[..., : header.channels])


def layers(image: Image.Image, path: Path, header: Header, page: int = 0) -> Pixels:
    """The pixels of the page that `image` is at, upright: (H, W, C), C = 1, 3 or, with alpha, 4 (RGBA).

    Gray images with alpha are RGBA too. Raises whatever the decoders raise, and DataError if
    the size is not that of the header.
    """
    orientation = _orientation(image)
    pixels = _decode_deep(image, path, page) if header.bits == 16 else _decode_8bit(image)
    pixels = _upright(pixels, orientation)
    if pixels.shape[:2] != (header.height, header.width):
        raise DataError(f"{path}: header promises {header.width}x{header.height}, pixels are {pixels.shape}")
    return pixels


def read_image(path: Path | str) -> Pixels:
    """Like `decode`, and warns (logger `restune.data`) if the file held more than a plain image."""
    path = Path(path)
    pixels = decode_image(path)
    if read_header(path).simplified:
        warn_simplified([path])
    return pixels


def warn_simplified(paths: list[Path]) -> None:
    """One line for all files that hold more than plain pixels; nothing for an empty list."""
    if paths:
        log.warning(
            "%d image%s with palette, transparency or several pages, read as a viewer shows them "
            "(on white, first page): %s",
            len(paths),
            "" if len(paths) == 1 else "s",
            some_names(str(path) for path in paths),
        )


def some_names(names: Any, most: int = 3) -> str:
    """The first few of many names, and how many more there are: "a, b, c and 9 more"."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def write_png(path: Path | str, pixels: Pixels) -> None:
    """Writes (H, W, 1 or 3) RGB pixels, uint8 or uint16, as a PNG of the same depth."""
    order = pixels[..., ::-1] if pixels.shape[2] == 3 else pixels
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(order))
    assert done, "OpenCV encodes every uint8 and uint16 image as PNG"
    Path(path).write_bytes(encoded.tobytes())


def jpeg_round_trip(pixels: Pixels, quality: int) -> Pixels:
    """(H, W, 1 or 3) uint8 RGB pixels after one trip through a JPEG file of quality 1 to 100."""
    order = np.ascontiguousarray(pixels[..., ::-1])
    encoded = cv2.imencode(".jpg", order, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.atleast_3d(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)))[..., ::-1]


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, C) pixels as gray (1; BT.601 luma) or colour (3; gray repeated). Same dtype."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[..., None]


def with_bits(pixels: Pixels, bits: int) -> Pixels:
    """uint8 pixels as uint16 if `bits` is 16. Exact: 257 v / 65535 = v / 255. Never narrows."""
    if bits == 16 and pixels.dtype == np.uint8:
        return np.asarray(pixels.astype(np.uint16) * np.uint16(257))
    return pixels


def to_tensor(pixels: Pixels) -> Tensor:
    """(C, H, W) float32 in [0, 1] of an (H, W, C) uint8 or uint16 image."""
    return to_unit(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_unit(planes: Pixels) -> Tensor:
    """A float32 tensor in [0, 1] of whole-number pixels in any layout; the memory is never shared."""
    # Division and not a product with 1/255: only then 8-bit values are the nearest float to v/255, and equal
    # their 16-bit twins. In numpy, because torch would wake all its threads for a tenth of a millisecond of work.
    white = np.float32(65535 if planes.dtype == np.uint16 else 255)
    return torch.from_numpy(np.divide(planes, white, dtype=np.float32))


def open_image(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    return Image.open(path)


def header_of(image: Image.Image, path: Path) -> Header:
    mode = image.mode
    if mode in ("F", "I", "LAB", "HSV"):
        raise DataError(f"{path}: pixels of type {mode}; allowed are gray and RGB with 8 or 16 bit")
    palette = mode in ("P", "PA")
    gray = mode in ("1", "L", "LA", "La") or mode.startswith("I;16") or (palette and _gray_palette(image))
    deep = mode.startswith("I;16")
    if image.format == "PNG":
        with path.open("rb") as file:
            start = file.read(26)
        # IHDR: bit depth and colour type; Pillow shows 16-bit colour as 8-bit, and gray with alpha as RGBA.
        deep, gray = start[24] == 16, gray or start[25] == 4
    elif image.format == "TIFF":
        deep = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))[0] == 16  # type: ignore[attr-defined]
    width, height = image.size
    if _orientation(image) >= 5:
        width, height = height, width
    # A phone's MPO is a JPEG with previews behind it, not a document of several pages.
    pages = getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
    return Header(
        height=height,
        width=width,
        channels=1 if gray else 3,
        bits=16 if deep else 8,
        simplified=palette or pages or "A" in mode or "a" in mode or "transparency" in image.info,
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied, 1 (upright) to 8."""
    # Pillow and OpenCV turn TIFFs themselves. A PNG whose EXIF does not precede its pixels would be decoded.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _gray_palette(image: Image.Image) -> bool:
    colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _decode_8bit(image: Image.Image) -> Pixels:
    if image.mode in ("PA", "LA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.atleast_3d(np.asarray(image))


def _decode_deep(image: Image.Image, path: Path, page: int) -> Pixels:
    image.load()  # raises for truncated files, which OpenCV may fill up silently
    pixels: Pixels | None
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[..., None]
    else:
        # Pillow cuts 16-bit colour to 8 bits.
        content = np.frombuffer(path.read_bytes(), np.uint8)
        _, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, None, (page, page + 1))
        pixels = pages[0] if pages else None
        if pixels is None or pixels.dtype != np.uint16:
            raise DataError(f"{path}: this kind of 16-bit image is not supported; PNG and TIFF with RGB are")
        pixels = np.atleast_3d(pixels)
        if pixels.shape[2] >= 3:
            pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return pixels


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Applies an EXIF orientation to an (H, W, C) array."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def on_white(pixels: Pixels) -> Pixels:
    """Lays a fourth channel (alpha) on white; other arrays pass."""
    if pixels.shape[2] != 4:
        return pixels
    white = np.uint32(np.iinfo(pixels.dtype).max)
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    # At most white * white + white / 2, which still fits into 32 bits.
    return np.asarray((colour * alpha + white * (white - alpha) + white // 2) // white).astype(pixels.dtype)


def cannot_read(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"{path}: not enough memory to decode this image"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: not a readable image (allowed: {' '.join(EXTENSIONS)})"
    return f"{path}: cannot be read, damaged or cut short ({error})"
