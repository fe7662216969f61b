"""SRResNet without its upsampler: residual blocks at full resolution (arXiv 1609.04802)."""

from collections import OrderedDict
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.layers import (
    ActivationKind,
    NormKind,
    Residuals,
    activation_factor,
    fast_layout,
    full_precision,
    make_activation,
    make_norm,
)

# Colour statistics of ImageNet, as every tutorial on image classification normalises with them;
# a gray image takes their mean over the channels.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BRANCH_INIT = 0.1  # of the last layer of a branch: a fresh block is close to the identity, at any depth
LAST_INIT = 0.01  # of the last convolution: a fresh network is close to the identity


class SRResNetConfig(BaseModel):
    """Settings of SRResNet. As published: width 64, 16 basic blocks, prelu, batch norm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["srresnet"] = "srresnet"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    width: int = Field(64, ge=4, le=256, description="feature channels")
    blocks: int = Field(16, ge=1, le=64, description="residual blocks")
    block: Literal["basic", "bottleneck"] = Field(
        "basic", description="3x3, 3x3; or 1x1 to half the width, 3x3, 1x1 back"
    )
    activation: ActivationKind = Field(
        "relu", description="after all but the last convolution of a block; glu doubles what it halves"
    )
    norm: NormKind = Field(
        "none",
        description="after every convolution of a block; instance and group take statistics of the whole image",
    )
    groups: int = Field(4, ge=1, le=256, description="of norm = group; must divide the channels it sees")
    residual_scale: float = Field(1.0, gt=0, le=1, description="factor of every block's branch")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="chance of a block to be left out in a training step (stochastic depth)"
    )
    channel_normalize: Literal["none", "input", "input_and_output"] = Field(
        "none",
        description=(
            "input: the image minus ImageNet's mean, over its standard deviation, is all that the network sees, "
            "its global residual included, and nothing is undone, as with a transform on the degraded side alone; "
            "input_and_output: undone at the end"
        ),
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.block == "bottleneck" and self.width % 2:
            raise ValueError(
                f"width {self.width} cannot be halved by block = bottleneck; allowed: even numbers"
            )
        narrowest = self.width // 2 if self.block == "bottleneck" else self.width
        if self.norm == "group" and narrowest % self.groups:
            allowed = [str(groups) for groups in range(1, narrowest + 1) if narrowest % groups == 0]
            raise ValueError(
                f"groups {self.groups} does not divide the {narrowest} channels inside a block; "
                f"allowed: {', '.join(allowed)}"
            )
        return self

    def build(self) -> "SRResNet":
        return SRResNet(self)


class ResidualBlock(nn.Sequential):
    """x + residual_scale * branch(x); the branch is convolutions, each with its norm, activations between them."""

    def __init__(self, config: SRResNetConfig) -> None:
        outer, inner = config.width, config.width // 2
        if config.block == "basic":
            sizes = [(outer, outer, 3), (outer, outer, 3)]
        else:
            sizes = [(outer, inner, 1), (inner, inner, 3), (inner, outer, 1)]
        layers: dict[str, nn.Module] = {}
        for number, (before, after, side) in enumerate(sizes, 1):
            last = number == len(sizes)
            wide = after if last else after * activation_factor(config.activation)
            layers[f"conv{number}"] = _convolution(before, wide, side, config.norm)
            layers[f"norm{number}"] = make_norm(config.norm, wide, config.groups)
            if not last:
                layers[f"act{number}"] = make_activation(config.activation)
        super().__init__(OrderedDict(layers))
        self.scale = config.residual_scale

    def forward(self, features: Tensor) -> Tensor:
        branch = features
        for layer in self:
            branch = layer(branch)
        return features + self.scale * branch


def _convolution(before: int, after: int, side: int, norm: NormKind) -> nn.Conv2d:
    """Without a bias where the norm that follows would subtract it."""
    return nn.Conv2d(before, after, side, padding=side // 2, bias=norm not in ("batch", "instance"))


class SRResNet(nn.Module):
    """degraded + conv_last(h + conv_hr(blocks(h))), with h = activation(conv_first(degraded)) (figure 4 of the paper).

    3x3 convolutions at both ends instead of 9x9, and the global residual, are those of BasicSR's MSRResNet,
    as are the names `conv_first`, `conv1`, `conv2`, `conv_hr` and `conv_last`; its `body` is `blocks` here. Other
    tools do not load SRResNet at scale 1, under any names. In training, `norm = "batch"` refuses a batch
    of one pixel; all else takes any size.
    """

    size_multiple = 1

    mean: Tensor
    std: Tensor

    def __init__(self, config: SRResNetConfig) -> None:
        super().__init__()
        width = config.width
        self.conv_first = nn.Conv2d(
            config.channels, width * activation_factor(config.activation), 3, padding=1
        )
        self.act_first = make_activation(config.activation)
        self.blocks = Residuals(*(ResidualBlock(config) for _ in range(config.blocks)), drop=config.drop_path)
        self.conv_hr = _convolution(width, width, 3, config.norm)
        self.norm_hr = make_norm(config.norm, width, config.groups)
        self.conv_last = nn.Conv2d(width, config.channels, 3, padding=1)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if config.channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        # Not part of the weights: the settings say it all.
        self.register_buffer("mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(-1, 1, 1), persistent=False)
        self.normalizes = config.channel_normalize != "none"
        self.restores = config.channel_normalize == "input_and_output"
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for block in self.blocks:
            *_, last = (weight for name, weight in block.named_parameters() if name.endswith(".weight"))
            last.mul_(BRANCH_INIT)
        self.conv_last.weight.mul_(LAST_INIT)

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return self.body(degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same; no size needs padding here."""
        seen = (degraded - self.mean) / self.std if self.normalizes else degraded
        features = self.act_first(self.conv_first(fast_layout(seen)))
        features = features + self.norm_hr(self.conv_hr(self.blocks(features)))
        with full_precision(degraded):
            restored: Tensor = seen + self.conv_last(features.to(degraded.dtype))
            return restored * self.std + self.mean if self.restores else restored

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that pruning may mask: the kernels between the first and the last layer."""
        kernels = [(name, parameter) for name, parameter in self.named_parameters() if parameter.ndim == 4]
        return kernels[1:-1]
