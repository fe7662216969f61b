"""KBNet_s: a U-shaped restorer whose blocks filter every pixel with its own kernel (arXiv 2303.02881)."""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.kernel_basis import kernel_basis_attention
from models.layers import (
    GlobalMean,
    LayerNorm2d,
    Recomputable,
    SimpleGate,
    UShape,
    UShapeConfig,
    scaled_conv,
    wide,
)

GROUP_SIZE = 4  # channels that one basis kernel sees
NUM_BASES = 32
KERNEL_SIZE = 3


class KBNetSConfig(UShapeConfig):
    """Settings of KBNet_s. The published colour denoiser is width 64 with all defaults below it."""

    kind: Literal["kbnet_s"] = "kbnet_s"
    lightweight: bool = Field(False, description="depthwise 3x3 instead of grouped 5x5 in the gate branch")
    ffn_scale: float = Field(
        2.0, ge=0.5, le=4, description="channels of the second half of a block, per width"
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        levels = len(self.encoder_blocks)
        if not _divides(self.width, levels):
            allowed = [str(width) for width in range(4, 257, 4) if _divides(width, levels)]
            raise ValueError(
                f"width {self.width} does not work with {levels} levels; allowed: {', '.join(allowed)}"
            )
        hidden = self.ffn_scale * self.width
        if hidden != int(hidden) or int(hidden) % 2:
            raise ValueError(
                f"ffn_scale {self.ffn_scale} times width {self.width} must be an even number; "
                f"allowed: multiples of {2 / self.width:g}"
            )
        return self

    def build(self) -> "KBNetS":
        return KBNetS(self)


def _divides(width: int, levels: int) -> bool:
    """True if every level's channels split into the groups that a block needs."""
    sizes = [width * 2**level for level in range(levels + 1)]
    return all(size % GROUP_SIZE == 0 and size % min(size, NUM_BASES) == 0 for size in sizes)


class KernelBasisBlock(Recomputable):
    """Kernel basis attention gated by a convolution branch, then a gated pair of 1x1; both residual."""

    def __init__(self, channels: int, hidden: int, lightweight: bool) -> None:
        super().__init__()
        self.channels, self.groups = channels, channels // GROUP_SIZE
        self.w = nn.Parameter(torch.empty(1, NUM_BASES, channels * GROUP_SIZE * KERNEL_SIZE**2))
        self.b = nn.Parameter(torch.empty(1, NUM_BASES, channels))
        bound = 1 / math.sqrt(self.w[0].numel())
        nn.init.uniform_(self.w, -bound, bound)
        nn.init.uniform_(self.b, -bound, bound)

        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.sca = nn.Sequential(GlobalMean(), nn.Conv2d(channels, channels, 1))
        if lightweight:
            local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        else:
            local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels // 4)
        self.conv11 = nn.Sequential(nn.Conv2d(channels, channels, 1), local)
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv21 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        inner = min(channels, NUM_BASES)
        self.conv2 = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, groups=inner),
            SimpleGate(),
            nn.Conv2d(inner // 2, NUM_BASES, 1),
        )
        self.conv211 = nn.Conv2d(channels, NUM_BASES, 1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.conv4 = nn.Conv2d(channels, hidden, 1)
        self.conv5 = nn.Conv2d(hidden // 2, channels, 1)
        self.gate = SimpleGate()
        # Small, so that a fresh block is close to the identity.
        self.ga1 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-2))
        self.attgamma = nn.Parameter(torch.full((1, NUM_BASES, 1, 1), 1e-2))
        self.beta = nn.Parameter(torch.full((1, channels, 1, 1), 1e-2))
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), 1e-2))

    def compute(self, features: Tensor) -> Tensor:
        x = self.norm1(features)
        attention = scaled_conv(self.conv2[2], self.conv2[:2](x), self.attgamma) + self.conv211(x)
        plain = self.conv21(self.conv1(x))
        # Scaled bases give the scaled result, and are fewer numbers than it.
        bases = (self.w.view(1, NUM_BASES, self.channels, -1) * self.ga1.view(-1, 1)).flatten(2)
        mixed = kernel_basis_attention(
            plain, attention, bases, self.b * self.ga1.flatten(), KERNEL_SIZE, self.groups
        )
        gated = (mixed + plain) * self.conv11(x) * self.sca(x)
        y = wide(features) + scaled_conv(self.conv3, gated, self.beta)
        refined = scaled_conv(self.conv5, self.gate(self.conv4(self.norm2(y))), self.gamma)
        return y + refined


class KBNetS(UShape):
    """The network; parameter names are the published ones, so checkpoints load both ways."""

    def __init__(self, config: KBNetSConfig) -> None:
        def block(channels: int) -> KernelBasisBlock:
            return KernelBasisBlock(channels, round(channels * config.ffn_scale), config.lightweight)

        super().__init__(config, block)
