"""Pix2Pix: a U-Net that halves the image until little more than one pixel is left (arXiv 1611.07004)."""

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.layers import crop_like, fast_layout, full_precision, pad_to_multiple

NormName = Literal["batch", "instance", "none"]

WIDEST = 8  # channels double from level to level up to this times the width
DROPOUT_UPS = 3


class Pix2PixConfig(BaseModel):
    """Settings of the generator. The published `unet_256` has all defaults, `unet_128` has depth 7."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pix2pix"] = "pix2pix"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    width: int = Field(64, ge=4, le=256, description="channels after the first halving; doubled three times")
    depth: int = Field(8, ge=2, le=8, description="halvings; sides are padded to multiples of 2^depth")
    norm: NormName = Field("batch", description="batch or instance norm inside, or none")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of features dropped after the ups next to the bottom (up to 3)"
    )
    output: Literal["tanh", "residual"] = Field(
        "tanh", description="tanh: the image itself, as published; residual: a change of the degraded image"
    )

    def build(self) -> "Pix2Pix":
        return Pix2Pix(self)


def norm_layer(name: NormName, channels: int) -> nn.Module:
    """Normalises `channels`; no norm is a layer too, so that names stay.

    As published, and unlike `make_norm`, instance norm has no parameters.
    """
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if name == "batch" else nn.InstanceNorm2d(channels)


@torch.no_grad()
def initialise(network: nn.Module, norm: NormName) -> None:
    """Kernels from N(0, 0.02^2) as published (section 6.2), scales of norms from N(1, 0.02^2), biases zero.

    Without norms nothing restores the scale of the signal, so the kernels have to keep it: variance
    2 / fan-in (arXiv 1502.01852). A pixel that doubling adds sees 4 of the 16 taps.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            taps = 16 if isinstance(layer, nn.Conv2d) else 4
            keeping = math.sqrt(2 / (taps * layer.in_channels))
            nn.init.normal_(layer.weight, 0.0, keeping if norm == "none" else 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SkipBlock(nn.Module):
    """Halve, work there, double again, and put the result beside the input: (N, 2 channels, H, W).

    `inner`, the block of the next level, takes `wide` channels; None is the bottom, without a norm on
    the way down because there may be one value per channel.
    """

    def __init__(
        self, channels: int, wide: int, inner: nn.Module | None, norm: NormName, drop: float
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        down = nn.Conv2d(channels, wide, 4, stride=2, padding=1, bias=bias)
        below = [norm_layer(norm, wide), inner] if inner else []
        up = nn.ConvTranspose2d(2 * wide if inner else wide, channels, 4, stride=2, padding=1, bias=bias)
        dropout = [nn.Dropout(drop)] if drop else []
        self.model = nn.Sequential(
            nn.LeakyReLU(0.2), down, *below, nn.ReLU(), up, norm_layer(norm, channels), *dropout
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.model(x)), 1)


class Pix2Pix(nn.Module):
    """The generator; parameter names are the published ones, so checkpoints load both ways.

    Images are in [0, 1] outside and in [-1, 1] inside. Like every model here it restores in eval form:
    batch norm with its running statistics, no dropout; the paper (section 3.3) keeps both as in
    training. Instance norm takes its statistics from all that it is given, padding included: a
    tile comes out a little different from the same place in its image, the more the smaller it is.
    """

    def __init__(self, config: Pix2PixConfig) -> None:
        super().__init__()
        widths = [config.width * min(2**level, WIDEST) for level in range(config.depth)]
        inner = None
        for level in range(config.depth - 1, 0, -1):
            drops = 0 < config.depth - 1 - level <= DROPOUT_UPS
            drop = config.dropout if drops else 0.0
            inner = SkipBlock(widths[level - 1], widths[level], inner, config.norm, drop)
        assert inner is not None
        down = nn.Conv2d(config.channels, config.width, 4, stride=2, padding=1, bias=config.norm != "batch")
        up = nn.ConvTranspose2d(2 * config.width, config.channels, 4, stride=2, padding=1)
        layers = nn.Sequential(down, inner, nn.ReLU(), up)
        self.model = nn.ModuleDict({"model": layers})
        self.size_multiple = 2**config.depth
        self.residual = config.output == "residual"
        initialise(self, config.norm)
        if self.residual:  # training starts from the degraded image
            nn.init.normal_(up.weight, 0.0, 0.0002)

    def _layers(self) -> nn.Sequential:
        layers = self.model["model"]
        assert isinstance(layers, nn.Sequential)
        return layers

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return crop_like(self.body(pad_to_multiple(degraded, self.size_multiple)), degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same for sides that are multiples of `size_multiple`: nothing padded, nothing cropped."""
        layers = self._layers()
        features = layers[:-1](fast_layout(2 * degraded - 1))
        # The last step stays in the type of the image: bfloat16 would round it to 61 dB.
        with full_precision(degraded):
            last: Tensor = layers[-1](features.to(degraded.dtype))
            return degraded + last if self.residual else (torch.tanh(last) + 1) / 2

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that pruning may mask: the kernels between the first and the last layer."""
        kernels = [(name, parameter) for name, parameter in self.named_parameters() if parameter.ndim == 4]
        return kernels[1:-1]
