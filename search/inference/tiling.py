"""Restoring an image of any size in tiles: their positions, how they are joined, statistics of the whole image.

Tiles begin at multiples of the network's `size_multiple`, see a margin around what they keep, and global
layers use statistics of the whole image (models/layers/global_statistics.py). With a margin as wide as the
network's field of view the result is that of the whole image; with a narrower one neighbours are blended over
`ramp` pixels.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Area, Whole, calibrated, global_layers, sees_whole, traits
from search.inference.precision import Precision

Read = Callable[[slice, slice], Tensor]
"""(C, rows, columns) of the degraded image, float32 in [0, 1]."""
Write = Callable[[int, Tensor], None]
"""Takes finished rows (C, rows, W) from the given row on."""

PATCHES = 256
FEWEST_PATCHES = 64
SAMPLED_SHARE = 0.1
FEWEST_TO_CALIBRATE = 24
CHECKED_PATCHES = 16
BAND_PIXELS = 1_000_000
TURNS = 8


@dataclass(frozen=True)
class Tiling:
    """Lengths in pixels, all multiples of the network's `size_multiple`."""

    side: int
    """Of what a tile adds to the image."""
    margin: int
    """Border that a tile reads around the part that it keeps."""
    ramp: int = 0
    """Border that a tile keeps beyond its side, blended with its neighbour."""


@dataclass(frozen=True)
class TiledImage:
    """An image to be read piece by piece, with zeros beyond its right and lower edge."""

    read: Read
    height: int
    width: int

    def piece(self, rows: slice, columns: slice) -> Tensor:
        """(1, C, rows, columns), padded with zeros where it reaches beyond the image."""
        inside = self.read(
            slice(rows.start, min(rows.stop, self.height)),
            slice(columns.start, min(columns.stop, self.width)),
        )
        missing = (
            0,
            columns.stop - columns.start - inside.shape[2],
            0,
            rows.stop - rows.start - inside.shape[1],
        )
        return F.pad(inside, missing)[None] if any(missing) else inside[None]


class Tiles:
    """One network on images in tiles. `turns` is 1, or 8 for the mean over all flips and quarter turns.

    A network here has `body`, for sides that are multiples of its `size_multiple`.
    """

    def __init__(self, model: nn.Module, precision: Precision, turns: int = 1) -> None:
        self.model, self.precision, self.turns = model, precision, turns
        self.multiple = int(model.size_multiple)  # type: ignore[arg-type]
        self.is_global = bool(global_layers(model))

    @torch.inference_mode()
    def restore(
        self,
        image: TiledImage,
        tiling: Tiling,
        write: Write,
        whole: Whole | None,
        done: Callable[[int], None],
    ) -> None:
        """Restore `image`; `done` is called with the pixels of every finished tile.

        Without `whole`, global layers see what the tile sees.
        """
        carry: Tensor | None = None
        heights = spans(image.height, tiling, self.multiple)
        widths = spans(image.width, tiling, self.multiple)
        for top, bottom in heights:
            rows = _Span(top, bottom, image.height, tiling, self.multiple)
            strip: Tensor | None = None
            for left, right in widths:
                columns = _Span(left, right, image.width, tiling, self.multiple)
                tile = image.piece(rows.outer, columns.outer)
                kept = self.forward(tile, (rows.core, columns.core), whole)[0][:, rows.kept, columns.kept]
                if strip is None:
                    strip = kept.new_zeros(kept.shape[0], kept.shape[1], image.width)
                strip[:, :, columns.target] += kept * columns.weights(kept)
                done((bottom - top) * (right - left))
            assert strip is not None
            strip *= rows.weights(strip)[:, None]
            if carry is not None:
                strip[:, : carry.shape[1]] += carry
            finished = strip.shape[1] - (0 if rows.last else 2 * tiling.ramp)
            carry = strip[:, finished:].clone()
            write(rows.target.start, strip[:, :finished])

    @torch.inference_mode()
    def forward(self, tiles: Tensor, area: Area, whole: Whole | None) -> Tensor:
        """Tiles restored, (N, C, H, W) float32 on the CPU; sides are multiples. `area` counts in statistics."""
        tiles = tiles.to(self.precision.device)
        total: Tensor | None = None
        with sees_whole(self.model, whole) if whole is not None else nullcontext():
            for turn in range(self.turns):
                turned = _turned(tiles, turn)
                if whole is not None:
                    whole.look(turned, _turned_area(area, tiles, turn), f"{turn} ")
                with self.precision.forward():
                    restored: Tensor = self.model.body(turned.contiguous())  # type: ignore[operator]
                restored = _turned_back(restored.float(), turn)
                total = restored if total is None else total + restored
        assert total is not None
        return (total / self.turns if self.turns > 1 else total).cpu()

    @torch.inference_mode()
    def estimate_statistics(self, sample: "ImageSample") -> Whole:
        """Estimate the statistics of the whole image from patches spread over it."""
        whole = Whole(weights=sample.weights)
        self.forward(sample.patches, sample.area, whole)
        whole.mode, whole.weights = "apart", None
        return whole

    @torch.inference_mode()
    def calibrate_statistics(self, whole: Whole, sample: "ImageSample") -> float:
        """Replace the estimated statistics by those observed in all tiles; the largest change of a pixel by that.

        In units of image intensity, on some of the patches.
        """
        patches = sample.patches[:: max(1, len(sample.patches) // CHECKED_PATCHES)]
        seen, whole.seen = whole.seen, {}
        before = self.forward(patches, sample.area, whole)
        whole.known, whole.seen = seen, {}
        after = self.forward(patches, sample.area, whole)
        whole.seen = {}
        return float((after.clamp(0, 1) - before.clamp(0, 1))[:, :, *sample.area].abs().max())


@dataclass(frozen=True)
class ImageSample:
    """Patches from all over an image, the part of them that is far from their edges, and how much each counts."""

    patches: Tensor
    area: Area
    weights: Tensor | None
    busiest: tuple[int, int]
    """Row and column of the middle of the patch with the most contrast."""

    @classmethod
    def drawn_from(cls, image: TiledImage, multiple: int, most_pixels: int) -> "ImageSample":
        """Patches spread evenly over the image that hold up to `most_pixels` together."""
        edge = max(8, multiple)
        side = max(64, 3 * multiple, min(8 * multiple, 256))
        side = min(
            side, *(max(length // multiple * multiple, multiple) for length in (image.height, image.width))
        )
        wanted = max(FEWEST_PATCHES, SAMPLED_SHARE * image.height * image.width / side**2)
        count = max(1, min(PATCHES, int(wanted), most_pixels // side**2))
        across = max(1, min(count, round(math.sqrt(count * image.width / image.height))))
        down = max(1, count // across)
        rng = np.random.default_rng(0)
        places = [
            (_place(top, bottom, multiple, rng), _place(left, right, multiple, rng))
            for top, bottom in _strata(image.height - side, down)
            for left, right in _strata(image.width - side, across)
        ]
        stack = torch.cat([image.piece(slice(y, y + side), slice(x, x + side)) for y, x in places])
        top, left = places[int(stack.var((1, 2, 3)).argmax())]
        cut = slice(edge, side - edge) if side > 2 * edge else slice(0, side)
        weights = None
        if len(stack) >= FEWEST_TO_CALIBRATE:
            weights = calibrated(traits(stack[:, :, cut, cut]), _global_statistics(image, multiple))
        return cls(stack, (cut, cut), weights, (top + side // 2, left + side // 2))


def _strata(length: int, count: int) -> Iterator[tuple[float, float]]:
    for n in range(count):
        yield n * length / count, (n + 1) * length / count


def _place(low: float, high: float, multiple: int, rng: np.random.Generator) -> int:
    return int(rng.uniform(low, high)) // multiple * multiple


def _global_statistics(image: TiledImage, multiple: int) -> Tensor:
    """Statistics of the whole image, padded to a multiple as the network sees it."""
    step = max(1, BAND_PIXELS // image.width)
    total: Tensor | None = None
    for top in range(0, image.height, step):
        rows = slice(top, min(top + step, image.height))
        band = traits(image.piece(rows, slice(0, image.width)))[0] * (rows.stop - rows.start)
        total = band if total is None else total + band
    assert total is not None
    height, width = (length + -length % multiple for length in (image.height, image.width))
    return total / height * (image.width / width)


def spans(length: int, tiling: Tiling, multiple: int) -> list[tuple[int, int]]:
    """Nearly equal parts of `length`, up to a quarter longer than a side; starts are multiples."""
    count = -(-length // tiling.side)
    part = -(-length // (count * multiple)) * multiple
    starts = list(range(0, length, part))
    if len(starts) > 1 and length - starts[-1] < max(2 * tiling.ramp, part // 4):
        del starts[-1]
    return list(zip(starts, [*starts[1:], length], strict=True))


class _Span:
    """One part of a side of the image: what its tile reads, keeps and adds."""

    def __init__(self, start: int, stop: int, length: int, tiling: Tiling, multiple: int) -> None:
        self.ramp, self.first, self.last = tiling.ramp, start == 0, stop == length
        self.target = slice(max(start - tiling.ramp, 0), min(stop + tiling.ramp, length))
        padded = length + -length % multiple
        reach = tiling.ramp + tiling.margin
        self.outer = slice(max(start - reach, 0), padded if self.last else min(stop + reach, padded))
        self.kept = slice(self.target.start - self.outer.start, self.target.stop - self.outer.start)
        # The padding of the last part counts in statistics, as it does when the image is restored whole.
        self.core = slice(start - self.outer.start, (padded if self.last else stop) - self.outer.start)

    def weights(self, like: Tensor) -> Tensor:
        """Weight of each kept pixel: less and less where the neighbour takes over. They sum to 1."""
        result = like.new_ones(self.target.stop - self.target.start)
        width = 2 * self.ramp
        rising = (torch.arange(width, dtype=like.dtype) + 0.5) / max(width, 1)
        if not self.first:
            result[:width] *= rising
        if not self.last:
            result[len(result) - width :] *= rising.flip(0)
        return result


def _turned(images: Tensor, turn: int) -> Tensor:
    images = images.transpose(2, 3) if turn & 4 else images
    flips = [axis for axis, bit in ((2, 2), (3, 1)) if turn & bit]
    return images.flip(flips) if flips else images


def _turned_back(images: Tensor, turn: int) -> Tensor:
    flips = [axis for axis, bit in ((2, 2), (3, 1)) if turn & bit]
    images = images.flip(flips) if flips else images
    return images.transpose(2, 3) if turn & 4 else images


def _turned_area(area: Area, tiles: Tensor, turn: int) -> Area:
    sides = list(zip(area, tiles.shape[2:], strict=True))
    if turn & 4:
        sides.reverse()
    rows, columns = (
        slice(length - part.stop, length - part.start) if turn & bit else part
        for (part, length), bit in zip(sides, (2, 1), strict=True)
    )
    return rows, columns
