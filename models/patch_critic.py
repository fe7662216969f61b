"""The critic of Pix2Pix: judges for every patch whether an image is the clean one (arXiv 1611.07004)."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.layers import fast_layout
from models.pix2pix import WIDEST, NormName, initialise, norm_layer


class PatchCriticConfig(BaseModel):
    """Settings of the critic. The published 70x70 PatchGAN has all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=4, le=256, description="channels after the first halving; doubled three times")
    layers: int = Field(
        3,
        ge=1,
        le=6,
        description="halvings; a logit sees 16, 34, 70, 142 ... pixels, crops need 3 * 2^layers",
    )
    norm: NormName = Field("batch", description="batch or instance norm inside, or none")

    def build(self, channels: int) -> "PatchCritic":
        return PatchCritic(channels, self.width, self.layers, self.norm)


def smallest_patch(layers: int) -> int:
    """The smallest side in pixels for which a critic of so many layers gives a logit."""
    return 3 << layers


class PatchCritic(nn.Module):
    """The network; parameters are named `model.N` as published (section 6.1.2).

    `layers` convolutions halve the resolution, two more keep the stride at 1, so that a logit sees
    9 * 2^layers - 2 pixels to a side. Nothing looks further: it judges texture, not composition.
    """

    def __init__(self, channels: int, width: int, layers: int, norm: NormName) -> None:
        super().__init__()
        widths = [width * min(2**level, WIDEST) for level in range(layers + 1)]
        stack: list[nn.Module] = [
            nn.Conv2d(2 * channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            stack += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, padding=1, bias=norm != "batch"),
                norm_layer(norm, widths[level]),
                nn.LeakyReLU(0.2),
            ]
        stack.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.model = nn.Sequential(*stack)
        self.layers = layers
        initialise(self, norm)

    def forward(self, degraded: Tensor, image: Tensor) -> Tensor:
        """A map of logits (N, 1, h, w), high where `image` passes for the clean version of `degraded`.

        Both are (N, C, H, W) in [0, 1]; h is H // 2^layers - 2. A side below 3 * 2^layers is a `ValueError`.
        """
        side, allowed = min(image.shape[-2:]), smallest_patch(self.layers)
        if side < allowed:
            raise ValueError(
                f"a patch of {side} pixels is too small for a critic of {self.layers} layers; "
                f"allowed: patches from {allowed} pixels, or fewer layers"
            )
        pair = torch.cat((degraded, image), 1)
        logits: Tensor = self.model(fast_layout(2 * pair - 1))
        return logits
