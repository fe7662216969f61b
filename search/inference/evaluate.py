"""Score a model on validation pairs, and restore one image of any size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from data.files import Pair
from search.inference.device import is_lack_of_memory, release_memory
from search.inference.metrics import mae, psnr_db, ssim, to_codes
from search.inference.precision import Precision
from search.inference.tiling import ImageSample, TiledImage, Tiles, Tiling

# Above this many pixels an image is restored in tiles, so that memory stays bounded.
TILE_PIXELS = 3_000_000
TILE_SIDE = 1024
SMALLEST_TILE = 64
TILE_OVERLAP = 64


@dataclass(frozen=True)
class Score:
    """Means over validation images after `step` steps; `seconds` of the trial's time so far."""

    step: int
    psnr_db: float
    ssim: float
    mae: float
    seconds: float


@dataclass(frozen=True)
class ImageScore:
    """Distances of one restored image from its clean original (8-bit codes)."""

    psnr_db: float
    ssim: float
    mae: float


def score_pairs(model: nn.Module, pairs: Iterable[Pair], precision: Precision) -> list[ImageScore]:
    """One score per pair, whole images, no augmentation. `model` is used as it stands (see `Average`)."""
    return [score_image(restore_image(model, pair.degraded, precision), pair.clean) for pair in pairs]


def score_image(restored: Tensor, clean: Tensor) -> ImageScore:
    """Compare two (C, H, W) images in [0, 1]."""
    ours, theirs = to_codes(restored), to_codes(clean)
    return ImageScore(psnr_db(ours, theirs), ssim(ours, theirs), mae(ours, theirs))


def mean_score(scores: Sequence[ImageScore], step: int, seconds: float) -> Score:
    """The mean over images of each metric."""
    return Score(
        step=step,
        psnr_db=fmean(s.psnr_db for s in scores),
        ssim=fmean(s.ssim for s in scores),
        mae=fmean(s.mae for s in scores),
        seconds=seconds,
    )


@torch.inference_mode()
def restore_image(model: nn.Module, degraded: Tensor, precision: Precision) -> Tensor:
    """(C, H, W) float32 in, the same out, on the same device as `degraded` came.

    Large images go in tiles; where memory runs out nevertheless, in smaller ones, down to `SMALLEST_TILE`.
    """
    side = TILE_SIDE
    if degraded[0].numel() <= TILE_PIXELS:
        try:
            with precision.forward():
                whole: Tensor = model(degraded[None].to(precision.device))
            return whole[0].to(degraded.device)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
        side = max(degraded.shape[1:]) // 2
        release_memory(precision.device)
    while True:
        try:
            return _restore_tiles(model, degraded, precision, side).to(degraded.device)
        except Exception as error:
            if not is_lack_of_memory(error) or side <= SMALLEST_TILE:
                raise
        side //= 2
        release_memory(precision.device)


def _restore_tiles(model: nn.Module, degraded: Tensor, precision: Precision, side: int) -> Tensor:
    restored = torch.empty(degraded.shape)
    tiles = Tiles(model, precision)
    image = TiledImage(lambda rows, columns: degraded[:, rows, columns], *degraded.shape[1:])
    whole = None
    if tiles.is_global:
        whole = tiles.estimate_statistics(
            ImageSample.drawn_from(image, tiles.multiple, max(side, 2 * SMALLEST_TILE) ** 2)
        )

    def write(top: int, rows: Tensor) -> None:
        restored[:, top : top + rows.shape[1]] = rows

    def whole_steps(length: int) -> int:
        return -(-length // tiles.multiple) * tiles.multiple

    tiling = Tiling(whole_steps(side), whole_steps(TILE_OVERLAP))
    tiles.restore(image, tiling, write, whole, lambda pixels: None)
    return restored
