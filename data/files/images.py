"""Single image files: read as a viewer shows them, written as PNG, turned into tensors."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from data.files.header import Header, Pixels
from data.files.readers import open_image, reading, upright_layers

log = logging.getLogger("restune.data")

_large = threading.Lock()
LARGE = 50_000_000
"""Images of more pixels are decoded one at a time, however many threads read: each may take gigabytes."""


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


def read_header(path: Path) -> Header:
    """Size and pixel type of an image file; decodes no pixels. Raises DataError for what is no image."""
    with open_image(path) as file, reading(path):
        return file.header(0)


def decode_image(path: Path) -> Pixels:
    """The pixels of an image file, (H, W, 1 or 3) in RGB order, uint8 or (for deeper files) uint16.

    Palette colours are looked up, transparency is laid on white, EXIF rotation is applied, and of
    several pages the first is taken: what an image viewer shows. Raises DataError for unreadable
    and truncated files.
    """
    with open_image(path) as file, reading(path):
        header = file.header(0)
        with _large if header.height * header.width > LARGE else nullcontext():
            pixels = on_white(upright_layers(path, file, 0))
            return np.ascontiguousarray(pixels[..., : header.channels])


def read_image(path: Path | str) -> Pixels:
    """Like `decode_image`, and warns (logger `restune.data`) if the file held more than a plain image."""
    path = Path(path)
    pixels = decode_image(path)
    warn_of_changes({path: read_header(path)})
    return pixels


def warn_of_changes(headers: Mapping[Path, Header]) -> None:
    """A line for all files that hold more than plain pixels, and one for each way to read others than whole numbers."""
    if simplified := [path for path, header in headers.items() if header.simplified]:
        log.warning(
            "%d image%s with palette, transparency or several pages, read as a viewer shows them "
            "(on white, first page): %s",
            len(simplified),
            "" if len(simplified) == 1 else "s",
            some_names(str(path) for path in simplified),
        )
    for note in sorted({header.note for header in headers.values() if header.note}):
        of_kind = [str(path) for path, header in headers.items() if header.note == note]
        log.warning(
            "%d image%s of %s: %s", len(of_kind), "" if len(of_kind) == 1 else "s", note, some_names(of_kind)
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


FULL_WHITE = 65535
"""The largest value of 16 bits."""
_USUAL_BITS = (8, 10, 12, 14)
"""Of the values that cameras, scanners and film scanners write into files of 16 bits."""


def white_of(largest: int) -> int:
    """The value of white in 16-bit files of which none goes beyond `largest`: of 8, 10, 12, 14 or all 16 bits."""
    return next((2**bits - 1 for bits in _USUAL_BITS if largest < 2**bits), FULL_WHITE)


def stretched(pixels: Pixels, white: int) -> Pixels:
    """uint16 pixels from 0 to `white` over the full range; others pass."""
    if pixels.dtype != np.uint16 or white == FULL_WHITE:
        return pixels
    return np.asarray((pixels.astype(np.uint32) * FULL_WHITE + white // 2) // white).astype(np.uint16)


def unstretched(pixels: Pixels, white: int) -> Pixels:
    """uint16 pixels of the full range from 0 to `white`."""
    return np.asarray((pixels.astype(np.uint32) * white + FULL_WHITE // 2) // FULL_WHITE).astype(np.uint16)


def to_tensor(pixels: Pixels) -> Tensor:
    """(C, H, W) float32 in [0, 1] of an (H, W, C) uint8 or uint16 image."""
    return to_unit(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_unit(planes: Pixels) -> Tensor:
    """A float32 tensor in [0, 1] of whole-number pixels in any layout; the memory is never shared."""
    # Division and not a product with 1/255: only then 8-bit values are the nearest float to v/255, and equal
    # their 16-bit twins. In numpy, because torch would wake all its threads for a tenth of a millisecond of work.
    white = np.float32(65535 if planes.dtype == np.uint16 else 255)
    return torch.from_numpy(np.divide(planes, white, dtype=np.float32))


def on_white(pixels: Pixels) -> Pixels:
    """Lays a fourth channel (alpha) on white; other arrays pass."""
    if pixels.shape[2] != 4:
        return pixels
    white = np.uint32(np.iinfo(pixels.dtype).max)
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    # At most white * white + white / 2, which still fits into 32 bits.
    return np.asarray((colour * alpha + white * (white - alpha) + white // 2) // white).astype(pixels.dtype)
