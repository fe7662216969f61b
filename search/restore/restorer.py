"""Restoring arrays of pixels with a model: channels, bit depth, precision, and tiles that fit into memory."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.files import FULL_WHITE, Pixels, to_unit
from models import count_parameters
from search.export import ExportedModel
from search.inference import (
    ImageSample,
    Precision,
    PrecisionName,
    TiledImage,
    TileMargin,
    Tiles,
    Tiling,
    has_own_memory,
    is_lack_of_memory,
    measure_bytes_per_pixel,
    measure_margin,
    memory_limit,
    release_memory,
    resident_bytes,
)

CPU_SIDE, GPU_SIDE = 768, 2048  # larger tiles are no faster
SMALLEST_SIDE = 64
MOST_MARGIN = 128
RAMP = 16
# Another pass over the image where the last one is farther from the image as a whole than this.
TOLERANCE = 0.5 / 255
MOST_PASSES = 4
HALF_SHARE = 0.999  # of the values must be within one 8-bit code of float32, none farther than two
HALF_GAIN = 1.1
PROBED_PATCHES = 8
SAMPLED_PIXELS = 2**18
ENOUGH_PIXELS = 2**16  # smaller images are too small to check half precision on, and fit into any memory


@dataclass(frozen=True)
class RestorerOptions:
    """Settings for restoring: device, precision, tile size, flips and turns, memory."""

    device: torch.device
    precision: PrecisionName = "auto"
    tile: int | None = None
    """Side of the tiles in pixels; None: what fits into memory."""
    turns: int = 1
    memory: int | None = None


@dataclass(frozen=True)
class Trace:
    """A record of how one image was restored: its tiles, and the difference that they may make."""

    tile: int | None
    """None: as a whole."""
    margin: int = 0
    difference: float = 0.0
    """To the image restored as a whole, in units of intensity, as far as it was measured."""
    passes: int = 1


class Restorer:
    """An exported model, ready for images of any size, gray or colour, 8 or 16 bits."""

    def __init__(self, exported: ExportedModel, how: RestorerOptions) -> None:
        self.how, self.channels, self.multiple = how, exported.channels, exported.multiple
        self.white_level = exported.white_level
        self.model = exported.model.to(how.device).eval()
        self.precisions: dict[int, PrecisionName] = {}
        self.note = ""
        self.bytes_per_pixel: float | None = None
        # Margins and statistics are measured in float32: the noise of half precision would hide them.
        self.exact = self._tiles("fp32")

    def _tiles(self, name: PrecisionName) -> Tiles:
        return Tiles(self.model, Precision(name, self.how.device), self.how.turns)

    def restore(
        self, pixels: Pixels, done: Callable[[int], None] = lambda pixels: None
    ) -> tuple[Pixels, Trace]:
        """The restored image, of the same shape and type as `pixels` (H, W, 1 or 3), and how it was done.

        A colour model sees a gray image three times, and the mean of its red, green and blue is the result.
        A gray model restores the planes of a colour image one by one. `done` is called with pixels as they are
        finished, H x W in the end; the number is negative where a pass starts over.
        """
        planes = [slice(0, 3)] if self.channels == 3 else [slice(n, n + 1) for n in range(pixels.shape[2])]
        result = np.empty_like(pixels)
        traces = []
        for plane in planes:
            seen, made = pixels[..., plane], result[..., plane]
            image = TiledImage(_reader(seen, self.channels), *pixels.shape[:2])
            meter = _Meter(done, 1 / len(planes))
            traces.append(self._restore(image, made, meter))
            meter.fill(image.height * image.width)
        return result, max(traces, key=lambda trace: trace.difference)

    def _restore(self, image: TiledImage, made: Pixels, meter: "_Meter") -> Trace:
        side, write = self._side(image, made.nbytes), _writer(made)
        most_sampled = self._sampled_pixels(side)
        tiles = self._tiles(self._precision(image, made.dtype.itemsize))
        while True:
            try:
                return self._in_tiles(image, tiles, side, most_sampled, write, meter)
            except Exception as error:
                if not is_lack_of_memory(error) or (side is not None and side <= SMALLEST_SIDE):
                    raise
            longest = max(image.height, image.width)
            side = max(min(longest, side or longest) // 2, SMALLEST_SIDE)
            most_sampled = side**2
            release_memory(self.how.device)
            meter.restart()

    def _side(self, image: TiledImage, result_bytes: int) -> int | None:
        """The side of the tiles, their margins included; None for the image as a whole."""
        longest = max(image.height, image.width)
        if self.how.tile is not None:
            return self.how.tile if self.how.tile < longest else None
        if self._pixels(image) <= ENOUGH_PIXELS:
            return None
        room = self._pixels_that_fit(image, result_bytes)
        if self._pixels(image) <= room:
            return None
        largest = GPU_SIDE if has_own_memory(self.how.device) else CPU_SIDE
        return max(SMALLEST_SIDE, min(largest, int(room**0.5)))

    def _sampled_pixels(self, side: int | None) -> int:
        """The number of pixels of sampled patches that the model may process at once, while no results are held yet."""
        most = (side or 0) ** 2
        if self.bytes_per_pixel is None:
            return max(most, SAMPLED_PIXELS)
        free = memory_limit(self.how.device, self.how.memory)
        if not has_own_memory(self.how.device):
            free -= resident_bytes()
        return max(most, int(free / self.bytes_per_pixel))

    def _pixels(self, image: TiledImage) -> int:
        height, width = (side + -side % self.multiple for side in (image.height, image.width))
        return height * width

    def _pixels_that_fit(self, image: TiledImage, result_bytes: int) -> int:
        """The number of pixels that the model may process at once."""
        device = self.how.device
        if self.bytes_per_pixel is None:
            whole = slice(0, 1), slice(0, 1)
            self.bytes_per_pixel = measure_bytes_per_pixel(
                lambda images: self.exact.forward(images, whole, None), self.channels, self.multiple, device
            )
        free = memory_limit(device, self.how.memory)
        if not has_own_memory(device):
            strips = 4 * self.channels * image.width * min(image.height, CPU_SIDE) * 5 // 4
            free -= resident_bytes() + result_bytes + strips
        return max(int(free / self.bytes_per_pixel), SMALLEST_SIDE**2)

    def _in_tiles(
        self,
        image: TiledImage,
        tiles: Tiles,
        side: int | None,
        most_sampled: int,
        write: Callable[[int, Tensor], None],
        meter: "_Meter",
    ) -> Trace:
        if side is None:
            longest = max(image.height, image.width)
            everything = Tiling(-(-longest // self.multiple) * self.multiple, 0)
            tiles.restore(image, everything, write, None, meter.add)
            return Trace(tile=None)
        sample = ImageSample.drawn_from(image, self.multiple, max(most_sampled, (2 * SMALLEST_SIDE) ** 2))
        whole = self.exact.estimate_statistics(sample) if tiles.is_global else None
        found = measure_margin(self.exact, image, sample.busiest, whole, side, self._most_margin(side))
        tiling = self._tiling(side, found)
        moved, passes = math.inf, 0
        while moved > TOLERANCE and passes < MOST_PASSES:
            if passes:
                meter.restart()
            tiles.restore(image, tiling, write, whole, meter.add)
            moved = 0.0 if whole is None else self.exact.calibrate_statistics(whole, sample)
            passes += 1
        return Trace(tiling.side, tiling.margin, max(moved, found.difference), passes)

    def _most_margin(self, side: int) -> int:
        return max(min(MOST_MARGIN, side // 4) // self.multiple, 1) * self.multiple

    def _tiling(self, side: int, found: TileMargin) -> Tiling:
        """The part of a tile that it keeps, so that with all around it its side is `side`."""
        ramp = 0 if found.is_exact else -(-RAMP // self.multiple) * self.multiple
        core = side - 2 * (found.margin + ramp)
        return Tiling(
            max(core // self.multiple, 1, -(-2 * ramp // self.multiple)) * self.multiple, found.margin, ramp
        )

    def _precision(self, image: TiledImage, depth: int) -> PrecisionName:
        """`auto` is half precision where it is faster and holds 8-bit results; 16-bit images are never halved."""
        if count_parameters(self.model) == 0:  # how filters and graphs compute is not torch's choice
            return "fp32"
        if self.how.precision != "auto":
            return self.how.precision
        if depth > 1 or (depth not in self.precisions and image.height * image.width < ENOUGH_PIXELS):
            return "fp32"
        if depth not in self.precisions:
            self.precisions[depth] = self._fastest_that_holds(image)
        return self.precisions[depth]

    def _fastest_that_holds(self, image: TiledImage) -> Literal["fp32", "bf16", "fp16"]:
        candidate = Precision("auto", self.how.device).name
        if candidate == "fp32":
            return "fp32"
        sample = ImageSample.drawn_from(image, self.multiple, 2**18)
        patches = sample.patches[:PROBED_PATCHES]
        results, seconds = [], []
        for name in ("fp32", candidate):
            tiles = self._tiles(name)
            tiles.forward(patches[:1], sample.area, None)
            started = time.perf_counter()
            results.append(tiles.forward(patches, sample.area, None).clamp(0, 1).mul(255).round())
            seconds.append(time.perf_counter() - started)
        apart = (results[0] - results[1]).abs()
        share, farthest = float((apart <= 1).float().mean()), float(apart.max())
        gain = seconds[0] / seconds[1]
        holds = share >= HALF_SHARE and farthest <= 2 and gain >= HALF_GAIN
        self.note = (
            f"precision {candidate if holds else 'fp32'}: with {candidate}, {100 * share:.2f} % of values are "
            f"within 1 of 255 of fp32, the farthest by {farthest:.0f}, at {gain:.1f} times the speed"
        )
        return candidate if holds else "fp32"


class _Meter:
    """Reports finished pixels; takes them back where an image has to be processed again."""

    def __init__(self, done: Callable[[int], None], share: float) -> None:
        self.done, self.share, self.reported, self.now = done, share, 0, 0

    def add(self, pixels: int) -> None:
        self.now += pixels
        self.fill(self.now)

    def fill(self, pixels: int) -> None:
        if (whole := int(self.share * pixels)) > self.reported:
            self.done(whole - self.reported)
            self.reported = whole

    def restart(self) -> None:
        self.done(-self.reported)
        self.now = self.reported = 0


def white_of_file(pixels: Pixels, white_level: int) -> int:
    """The value of white in an image: `white_level` of a model that was trained with so few bits if it has no more."""
    fits = pixels.dtype == np.uint16 and int(pixels.max()) <= white_level
    return white_level if fits else FULL_WHITE


def _reader(pixels: Pixels, channels: int) -> Callable[[slice, slice], Tensor]:
    def read(rows: slice, columns: slice) -> Tensor:
        planes = to_unit(np.ascontiguousarray(pixels[rows, columns].transpose(2, 0, 1)))
        return planes.expand(channels, -1, -1)

    return read


def _writer(made: Pixels) -> Callable[[int, Tensor], None]:
    white = np.iinfo(made.dtype).max

    def write(top: int, rows: Tensor) -> None:
        if len(rows) > made.shape[2]:
            rows = rows.mean(0, keepdim=True)
        codes = rows.nan_to_num(0.0).clamp_(0, 1).mul_(white).round_()
        made[top : top + rows.shape[1]] = codes.permute(1, 2, 0).numpy()

    return write
