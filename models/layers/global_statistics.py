"""Knowledge that a network needs of the whole image while it sees one tile: the statistics of its global layers.

A mean over all pixels (NAFNet's and KBNet's channel attention) or a norm over them (instance, group) makes
every pixel depend on all others, so tiles that are restored one by one differ from the image as a whole. Here
each such layer is given the statistics of the whole image: first from a sample of patches, then, if need be,
from what all tiles together have shown.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Literal

import torch
from torch import Tensor, nn

from models.layers.blocks import GlobalMean, GroupNorm2d, compute_dtype, full_precision

GLOBAL_LAYERS = (GlobalMean, GroupNorm2d, nn.InstanceNorm2d)

Area = tuple[slice, slice]
"""Rows and columns of a tile, in its own pixels."""


def global_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `model` whose result at one pixel depends on all the others."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, GLOBAL_LAYERS)}


@dataclass(frozen=True)
class Moments:
    """Of each channel that enters a layer, float64: mean and mean square over `pixels` pixels."""

    pixels: int
    mean: Tensor
    square: Tensor

    @classmethod
    def measured(cls, features: Tensor, weights: Tensor | None, spread: bool) -> "Moments":
        """Over all pixels of (N, C, H, W). Images count by `weights` (N), which sum to 1, or alike.

        Without `spread` the mean square is left at zero.
        """
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        if (
            spread
        ):  # a variance is a small difference of large numbers, so it is not made from sums of squares
            variance, mean = torch.var_mean(wide, (2, 3), correction=0)
            mean = mean.double()
            square = variance.double() + mean.square()
        else:
            mean = wide.mean((2, 3)).double()
            square = torch.zeros_like(mean)
        if weights is None:
            weights = mean.new_full((len(mean),), 1 / len(mean))
        weights = weights.to(mean)
        return cls(wide[:, 0].numel(), weights @ mean, weights @ square)

    def __add__(self, other: "Moments") -> "Moments":
        pixels = self.pixels + other.pixels
        share = other.pixels / pixels
        return Moments(
            pixels,
            self.mean + share * (other.mean - self.mean),
            self.square + share * (other.square - self.square),
        )


@dataclass
class Whole:
    """The moments of a model's global layers over an image, and how they come about.

    `together` is for patches that go through the model as one batch: each layer takes its moments over all of
    them, so that deeper layers see what they would see in the whole image. `apart` is for tiles one at a
    time: each layer is given the moments in `known`, and what it found itself is added to `seen`.
    """

    mode: Literal["together", "apart"] = "together"
    known: dict[str, Moments] = field(default_factory=dict)
    seen: dict[str, Moments] = field(default_factory=dict)
    weights: Tensor | None = None
    """Weight of each patch."""
    key: str = ""
    """Index of the image among several of one size (a turned image counts as another one)."""
    area: Area = (slice(0, 1), slice(0, 1))
    size: tuple[int, int] = (1, 1)

    def look(self, tile: Tensor, area: Area, key: str) -> None:
        """Of the next batch the pixels in `area` count."""
        self.area, self.size, self.key = area, (tile.shape[2], tile.shape[3]), key

    def moments(self, name: str, features: Tensor, spread: bool) -> Moments:
        """The moments that layer `name` is to use for the moments of the image that `features` are a tile of."""
        inner = (
            slice(_scaled(part.start, here, there), _scaled(part.stop, here, there))
            for part, here, there in zip(self.area, features.shape[2:], self.size, strict=True)
        )
        name = self.key + name
        found = Moments.measured(features[:, :, *inner], self.weights, spread)
        if self.mode == "together":
            self.known[name] = found
        else:
            self.seen[name] = self.seen[name] + found if name in self.seen else found
        return self.known[name]


def _scaled(place: int, here: int, there: int) -> int:
    assert place * here % there == 0, "tiles are cut where every level of the network has an edge"
    return place * here // there


@contextmanager
def sees_whole(model: nn.Module, whole: Whole) -> Iterator[None]:
    """A region in which the global layers of `model` use the moments of `whole` in place of their tile's."""
    layers = global_layers(model)
    try:
        for name, layer in layers.items():
            layer.forward = MethodType(_forward(name, whole), layer)
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)


def _forward(name: str, whole: Whole) -> Callable[[nn.Module, Tensor], Tensor]:
    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, GlobalMean):
            mean = whole.moments(name, x, spread=False).mean
            return mean.to(torch.promote_types(x.dtype, torch.float32)).view(1, -1, 1, 1)
        assert isinstance(layer, GroupNorm2d | nn.InstanceNorm2d)
        found = whole.moments(name, x, spread=True)
        groups = layer.groups if isinstance(layer, GroupNorm2d) else x.shape[1]
        mean, square = (moment.view(groups, -1).mean(1) for moment in (found.mean, found.square))
        scale = ((square - mean.square()).clamp(min=0) + layer.eps).rsqrt()
        scale, mean = (value.repeat_interleave(x.shape[1] // groups) for value in (scale, mean))
        if layer.weight is not None:
            scale = scale * layer.weight
        shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            normal = wide * scale.to(wide).view(1, -1, 1, 1) + shift.to(wide).view(1, -1, 1, 1)
            return normal.to(compute_dtype(x) if isinstance(layer, GroupNorm2d) else x.dtype)

    return forward


RIDGE = 0.05


def traits(images: Tensor) -> Tensor:
    """Features of brightness and detail: (N, T) means over simple functions of (N, C, H, W), float64.

    These are cheap for the whole image, and what a network's channels measure goes along with them.
    """
    gray = images.mean(1, keepdim=True)
    near = (gray[..., 1:] - gray[..., :-1]).abs()
    far = (gray[..., 2:] - gray[..., :-2]).abs()
    functions = (images, images.square(), gray**3, near, near.square(), far)
    return torch.cat([function.mean((2, 3)) for function in functions], 1).double()


def calibrated(patches: Tensor, image: Tensor) -> Tensor:
    """Weights (N) that sum to 1, with which the traits (N, T) of patches have the mean `image` (T), nearly.

    The calibration estimator of survey sampling (Deville and Särndal, JASA 1992), with a ridge. Weighted so,
    the moments of a few patches come about ten times as near to those of the image as their plain means
    (tests/benchmarks/restore.py).
    """
    count = len(patches)
    mean, deviation = patches.mean(0), patches.std(0, correction=0) + 1e-9
    standard, target = (patches - mean) / deviation, (image - mean) / deviation
    gram = standard.T @ standard + RIDGE * count * torch.eye(patches.shape[1]).to(patches)
    change: Tensor = standard @ torch.linalg.solve(gram, target)
    return 1 / count + change
