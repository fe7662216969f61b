"""Restores luminance alone, with any network for gray images; colour stays that of the degraded image."""

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

if TYPE_CHECKING:
    from models import NetworkConfig

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601 in full range, as in JPEG


class LuminanceConfig(BaseModel):
    """A network that sees one channel, Y of YCbCr; Cb and Cr are carried over from the degraded image.

    For degradations that leave colour alone: noise in Cb and Cr stays. A gray image is its own luminance,
    so the network sees it as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["luminance"] = "luminance"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    model: "NetworkConfig" = Field(
        discriminator="kind", description="the network for the luminance; its own `channels` is 1"
    )

    @field_validator("model")
    @classmethod
    def _sees_one_channel(cls, model: "NetworkConfig") -> "NetworkConfig":
        if "channels" in model.model_fields_set and model.channels != 1:
            raise ValueError(f"channels is {model.channels}, but luminance has 1: leave it out")
        return model.model_copy(update={"channels": 1})

    def build(self) -> "Luminance":
        return Luminance(self)


class Luminance(nn.Module):
    """A network for one channel with the interface of one for `channels`.

    While Cb and Cr stay, red, green and blue all change by what Y changes (R = Y + 1.402 Cr and so on):
    that is added to the degraded image, so nothing is lost to conversion. A loss on colours trains the
    network to the change that suits all three best. Strong colours may leave [0, 1].
    """

    luma: Tensor

    def __init__(self, config: LuminanceConfig) -> None:
        super().__init__()
        self.model = config.model.build()
        self.size_multiple = self.model.size_multiple
        weights = LUMA if config.channels == 3 else (1.0,)
        self.register_buffer("luma", torch.tensor(weights).view(-1, 1, 1), persistent=False)

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        y = self._luminance(degraded)
        restored: Tensor = degraded + (self.model(y) - y)
        return restored

    def body(self, degraded: Tensor) -> Tensor:
        """The same for sides that are multiples of `size_multiple`: nothing padded, nothing cropped."""
        y = self._luminance(degraded)
        return degraded + (self.model.body(y) - y)

    def _luminance(self, images: Tensor) -> Tensor:
        return (images * self.luma).sum(1, keepdim=True)

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that the network lets pruning mask."""
        return [(f"model.{name}", parameter) for name, parameter in self.model.prunable()]
