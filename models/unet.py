"""A U-Net of residual blocks for restoration, in the form of DRUNet (arXiv 2008.13751)."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.layers import (
    ActivationKind,
    activation_factor,
    crop_like,
    fast_layout,
    full_precision,
    make_activation,
    pad_to_multiple,
)

NOISE_LEVEL = 15 / 255


class UNetConfig(BaseModel):
    """Settings of the U-Net. With all defaults it is the published colour DRUNet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["unet"] = "unet"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    width: int = Field(64, ge=4, le=256, description="feature channels at full resolution; doubled per level")
    levels: int = Field(3, ge=1, le=4, description="times the resolution is halved")
    blocks: int = Field(
        4, ge=1, le=16, description="residual blocks per level, on each side and in the middle"
    )
    skip: Literal["add", "concat"] = Field("add", description="how features of both sides are joined")
    activation: ActivationKind = Field("relu", description="between the two convolutions of a residual block")
    global_residual: bool = Field(False, description="add the degraded image to the output")
    noise_map: bool = Field(
        True,
        description="one more input channel, 15/255 everywhere: the only constant, as there are no biases",
    )

    @property
    def is_drunet(self) -> bool:
        """True if other tools (spandrel, and so chaiNNer and ComfyUI) take the weights for a DRUNet."""
        published = (self.levels, self.skip, self.activation) == (3, "add", "relu")
        return published and self.blocks >= 2 and self.noise_map and not self.global_residual

    def build(self) -> "UNet":
        return UNet(self)


class ResidualBlock(nn.Module):
    """x + conv(activation(conv(x))), without biases."""

    def __init__(self, channels: int, activation: ActivationKind) -> None:
        super().__init__()
        inner = channels * activation_factor(activation)
        self.res = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            make_activation(activation),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """The network; parameter names are those of KAIR's UNetRes."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        joined = 2 if config.skip == "concat" else 1

        def blocks(channels: int) -> list[nn.Module]:
            return [ResidualBlock(channels, config.activation) for _ in range(config.blocks)]

        width = config.width
        self.m_head = nn.Conv2d(config.channels + config.noise_map, width, 3, padding=1, bias=False)
        for level in range(1, config.levels + 1):
            down = nn.Conv2d(width, 2 * width, 2, stride=2, bias=False)
            self.add_module(f"m_down{level}", nn.Sequential(*blocks(width), down))
            width *= 2
        self.m_body = nn.Sequential(*blocks(width))
        for level in range(config.levels, 0, -1):
            up = nn.ConvTranspose2d(joined * width, width // 2, 2, stride=2, bias=False)
            width //= 2
            self.add_module(f"m_up{level}", nn.Sequential(up, *blocks(width)))
        self.m_tail = nn.Conv2d(joined * width, config.channels, 3, padding=1, bias=False)
        if config.global_residual:  # training starts from the degraded image
            self.m_tail.weight.data.mul_(0.01)
        self.size_multiple = 2**config.levels
        if not config.is_drunet:
            # Other tools would take the weights for a DRUNet all the same; a name they do not know stops them.
            self.register_buffer("other_than_drunet", torch.ones(1))

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return crop_like(self.body(pad_to_multiple(degraded, self.size_multiple)), degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same for sides that are multiples of `size_multiple`: nothing padded, nothing cropped."""
        x = degraded
        if self.config.noise_map:
            x = torch.cat((x, torch.full_like(x[:, :1], NOISE_LEVEL)), 1)
        x = self.m_head(fast_layout(x))
        skips = [x]
        for level in range(1, self.config.levels + 1):
            x = self.get_submodule(f"m_down{level}")(x)
            skips.append(x)
        x = self.m_body(x)
        for level in range(self.config.levels, 0, -1):
            x = self.get_submodule(f"m_up{level}")(self._joined(x, skips.pop()))
        # The last step stays in the type of the image: bfloat16 would round it to 61 dB.
        with full_precision(degraded):
            restored: Tensor = self.m_tail(self._joined(x, skips.pop()).to(degraded.dtype))
            return degraded + restored if self.config.global_residual else restored

    def _joined(self, x: Tensor, skip: Tensor) -> Tensor:
        return x + skip if self.config.skip == "add" else torch.cat((x, skip), 1)

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that pruning may mask: the kernels between the first and the last layer."""
        ends = ("m_head.", "m_tail.")
        return [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if parameter.ndim == 4 and not name.startswith(ends)
        ]
