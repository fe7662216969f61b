"""Augmentation of training crops: the settings, and what they do to a batch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data.files import Pair

MIXUP_SHAPE = 1.2  # both parameters of the beta distribution of weights (KBNet, arXiv 2303.02881)
PASTED_SIDE = 0.7  # of the patch, as published for CutBlur (arXiv 2004.00448)

Vary = Callable[[NDArray[np.float32]], None]
"""Changes a batch (B, C, H, W) of images in [0, 1], in place; at every call in the same way."""


class Augmentation(BaseModel):
    """Variations of training crops, to both sides of a pair alike unless it says otherwise.

    Each share is the chance of every crop for itself. Where degraded images are made from clean ones, the
    clean ones are varied first: their noise is as it was set. Where both come from files, resizing and
    mixing average the noise of the degraded side: mixing two halves leaves 0.71 of its deviation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flips: bool = Field(True, description="mirror left-right and top-bottom")
    rotations: bool = Field(
        True, description="turn by 90, 180 or 270 degrees (pixels are moved, never resampled)"
    )
    rescale: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops cut larger or smaller and resized to the patch; changes the noise of files",
    )
    rescale_limit: float = Field(
        2.0, gt=1, le=4, description="they are up to so many times larger or smaller (log-uniform)"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops mixed with the next of the batch; lessens the noise of files",
    )
    channel_shuffle: float = Field(
        0.0, ge=0, le=1, description="share of crops with red, green and blue in random order; not for gray"
    )
    cutblur: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops with the clean image in or around a square of the degraded one (CutBlur)",
    )

    def elements(self) -> tuple[int, ...]:
        """Elements that `dihedral` may be called with, equally often: closed under composition, the identity first."""
        if self.flips and self.rotations:
            return tuple(range(8))
        if self.rotations:
            return (0, 1, 2, 3)
        return (0, 2, 4, 6) if self.flips else (0,)

    def sides(self, patch: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The sides in pixels of the squares that `count` crops of `patch` are made from."""
        factors = self.rescale_limit ** rng.uniform(-1, 1, count)
        chosen = rng.random(count) < self.rescale
        return np.where(chosen, np.maximum(np.rint(patch * factors), 1), patch).astype(np.int64)

    def vary(self, images: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Mixes a batch (B, C, H, W) of images in [0, 1], in place: they stay in that range.

        A crop is mixed with the next of the batch, the last with the first; one alone stays as it is.
        """
        count, channels = images.shape[:2]
        if self.mixup:
            chosen = np.flatnonzero(rng.random(count) < self.mixup)
            weights = rng.beta(MIXUP_SHAPE, MIXUP_SHAPE, len(chosen)).astype(np.float32)
            others = images[(chosen + 1) % count]
            for index, other, weight in zip(chosen, others, weights, strict=True):
                # In this form rounding never leaves the unit range, which photon noise could not take.
                image = images[index]
                image -= other
                image *= weight
                image += other
        if self.channel_shuffle and channels == 3:
            chosen = np.flatnonzero(rng.random(count) < self.channel_shuffle)
            orders = rng.permuted(np.tile(np.arange(3), (len(chosen), 1)), axis=1)
            images[chosen] = images[chosen[:, None], orders]

    def paste(self, pair: Pair, rng: np.random.Generator) -> None:
        """CutBlur at scale 1: puts clean pixels into a batch of degraded crops, in place.

        A crop becomes clean in a square of 0.7 of its side, or everywhere around it. What is clean already
        has to be left alone, so a network learns where to restore, and how much.
        """
        count, _, side, _ = pair.degraded.shape
        cut = round(PASTED_SIDE * side)
        chosen = np.flatnonzero(rng.random(count) < self.cutblur).tolist()
        places = rng.integers(0, side - cut, (len(chosen), 2), endpoint=True).tolist()
        around = rng.random(len(chosen)) < 0.5
        degraded, clean = pair.degraded.numpy(), pair.clean.numpy()
        # Slices, because a mask for all pixels takes fifty times as long.
        for index, (top, left), outside in zip(chosen, places, around, strict=True):
            square = (index, slice(None), slice(top, top + cut), slice(left, left + cut))
            inner = (degraded if outside else clean)[square].copy()
            if outside:
                degraded[index] = clean[index]
            degraded[square] = inner
