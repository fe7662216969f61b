"""NAFNet: a U-shaped restorer without activation functions (arXiv 2204.04676)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import GlobalMean, LayerNorm2d, Recomputable, SimpleGate, UShape, UShapeConfig


class NAFNetConfig(UShapeConfig):
    """Settings of NAFNet. The published denoisers have all defaults and width 32 or 64."""

    kind: Literal["nafnet"] = "nafnet"

    def build(self) -> "NAFNet":
        return NAFNet(self)


class NAFBlock(Recomputable):
    """A gated depthwise convolution with channel attention, then a gated pair of 1x1; both residual.

    With SG(x) the product of the two halves of the channels and SCA(x) = x * W mean(x), per channel:

        y = x + beta * conv3(SCA(SG(conv2(conv1(norm1(x))))))
        result = y + gamma * conv5(SG(conv4(norm2(y))))

    (section 3.3). beta and gamma start at zero: a fresh block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(GlobalMean(), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.gate = SimpleGate()
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def compute(self, x: Tensor) -> Tensor:
        # Autocast rounds what a block adds; the sum over blocks stays exact, at a cost of 2 to 5 %.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        gated = self.gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + _scaled(self.conv3, gated * self.sca(gated), self.beta)
        return y + _scaled(self.conv5, self.gate(self.conv4(self.norm2(y))), self.gamma)


def _scaled(convolution: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
    """`convolution(x) * scale`, with `scale` (1, C, 1, 1) applied to the kernels instead of the pixels.

    A training step of a small network takes a tenth less time, because every pass over the pixels counts.
    """
    assert convolution.bias is not None
    kernels, bias = convolution.weight * scale.view(-1, 1, 1, 1), convolution.bias * scale.flatten()
    return F.conv2d(x, kernels, bias)


class NAFNet(UShape):
    """The network; parameter names are the published ones, so checkpoints load both ways."""

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__(config, NAFBlock)
        assert self.ending.bias is not None
        with torch.no_grad():  # training starts from the degraded image
            self.ending.weight.mul_(0.01)
            self.ending.bias.zero_()
