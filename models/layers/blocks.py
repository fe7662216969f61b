"""Layers that several networks share."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def autocast_is_on(like: Tensor) -> bool:
    """True if autocast acts on operations with `like`."""
    device = like.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A region without autocast on the device of `like`; nothing at all where autocast is off."""
    return torch.autocast(like.device.type, enabled=False) if autocast_is_on(like) else nullcontext()


def fast_layout(images: Tensor) -> Tensor:
    """`images` in the memory order that convolutions on their device like best.

    On CPUs that is channels last: with 8 to 64 channels, forward and backward of 1x1, grouped and depthwise
    convolutions take a third to a tenth of the time (tests/benchmarks/kernel_basis.py).
    """
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        return images.contiguous(memory_format=torch.channels_last)
    return images


def compute_dtype(like: Tensor) -> torch.dtype:
    """Type that matrix products on `like` run in: the autocast type where autocast is on, else its own."""
    return torch.get_autocast_dtype(like.device.type) if autocast_is_on(like) else like.dtype


class LayerNorm2d(nn.Module):
    """Every pixel normalised over its channels, then scaled and shifted per channel.

    (N, C, H, W) to the same shape. Statistics are taken in float32 at least; under autocast the
    result has the autocast type, because convolutions follow.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        result = compute_dtype(x)
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            if wide.device.type == "cpu" and not torch.compiler.is_compiling():
                last = wide.permute(0, 2, 3, 1)
                return (
                    F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps)
                    .permute(0, 3, 1, 2)
                    .to(result)
                )
            centred = wide - wide.mean(1, keepdim=True)
            scale = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
            normal = centred * scale * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
            return normal.to(result)


def wide(x: Tensor) -> Tensor:
    """`x` in float32 at least: what residuals are added up in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def scaled_conv(conv: nn.Module, x: Tensor, scale: Tensor) -> Tensor:
    """`conv(x) * scale` for a plain convolution of kernel size 1 and one scale per channel, (1, C, 1, 1).

    The scale goes into the weights, which are fewer than the pixels; exported graphs keep it apart, because
    other programs want convolutions with weights that are constants.
    """
    if torch.compiler.is_compiling() or x.device.type == "meta":
        return conv(x) * scale  # type: ignore[no-any-return]
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale.flatten())


class SimpleGate(nn.Module):
    """The product of the two halves of the channels (NAFNet, arXiv 2204.04676 section 3.3)."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return left * right


class GlobalMean(nn.Module):
    """The mean of each channel over the image, (N, C, 1, 1), summed in float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            # The gradient is in the order of the mean: channels last like the others that it is added to.
            return x.permute(0, 2, 3, 1).mean((1, 2), keepdim=True, dtype=dtype).permute(0, 3, 1, 2)
        return x.mean((2, 3), keepdim=True, dtype=dtype)


NormKind = Literal["none", "batch", "instance", "layer", "group"]
ActivationKind = Literal["relu", "prelu", "gelu", "silu", "glu"]


class GroupNorm2d(nn.Module):
    """Every image normalised over all pixels of each group of channels, then scaled and shifted per channel.

    (N, C, H, W) to the same shape (arXiv 1803.08494); with as many groups as channels it is instance
    norm (arXiv 1607.08022). Statistics are taken in float32 at least; under autocast the result has
    the autocast type. A group that is a single number becomes its shift: 1x1 images pass in any mode.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        result = compute_dtype(x)
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            # Not F.group_norm or F.instance_norm: they refuse groups of one number.
            return torch.group_norm(wide, self.groups, self.weight, self.bias, self.eps).to(result)


def make_norm(kind: NormKind, channels: int, groups: int) -> nn.Module:
    """A normalisation of (N, channels, H, W); `groups` is read by "group" alone and divides `channels`.

    "batch" cannot be trained on a single pixel, as it sees one number per channel; the others can.
    """
    match kind:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)
        case "instance":
            return GroupNorm2d(channels, channels)
        case "layer":
            return LayerNorm2d(channels)
        case "group":
            return GroupNorm2d(groups, channels)


def make_activation(kind: ActivationKind) -> nn.Module:
    """An activation. "glu" halves the channels, so what comes before it has `activation_factor` as many."""
    match kind:
        case "relu":
            return nn.ReLU()
        case "prelu":
            return nn.PReLU()
        case "gelu":
            return nn.GELU()
        case "silu":
            return nn.SiLU()
        case "glu":
            return nn.GLU(dim=1)


def activation_factor(kind: ActivationKind) -> int:
    """Number of channels an activation takes for each that it gives: 2 if gated (arXiv 1612.08083), else 1."""
    return 2 if kind == "glu" else 1


class Residuals(nn.Sequential):
    """Blocks of the form x + f(x), one after another; while training each may leave out its f.

    Stochastic depth (arXiv 1603.09382), drawn for every image of the batch: f counts 0 with probability
    `drop`, else 1 / (1 - drop), so that its mean stays. In evaluation all blocks work as they are.
    """

    def __init__(self, *blocks: nn.Module, drop: float) -> None:
        super().__init__(*blocks)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            y = block(x)
            if self.training and self.drop > 0:
                kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
                y = torch.where(kept, x + (y - x) / (1 - self.drop), x)
            x = y
        return x
