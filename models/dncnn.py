"""DnCNN: a plain stack of convolutions that estimates the degradation (arXiv 1608.03981)."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.layers import fast_layout, full_precision


class DnCNNConfig(BaseModel):
    """Settings of DnCNN. Other tools recognise its files from 8 layers on, or 4 with batch norm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dncnn"] = "dncnn"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    width: int = Field(64, ge=4, le=256, description="feature channels")
    layers: int = Field(17, ge=3, le=40, description="convolutions, the first and the last included")
    batch_norm: bool = Field(False, description="normalise over the batch after every inner convolution")

    def build(self) -> "DnCNN":
        return DnCNN(self)


class DnCNN(nn.Module):
    """The network; parameters are named `model.N` as in KAIR and DPIR."""

    size_multiple = 1

    def __init__(self, config: DnCNNConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(config.layers - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1))
            if config.batch_norm:
                layers.append(nn.BatchNorm2d(width, eps=1e-4))
            layers.append(nn.ReLU())
        layers.append(nn.Conv2d(width, config.channels, 3, padding=1))
        self.model = nn.Sequential(*layers)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        # torch's default shrinks the signal layer by layer: nothing was learnt in 3,000 steps.
        # The last layer starts near zero, so that training starts from the degraded image.
        convolutions = [layer for layer in self.model if isinstance(layer, nn.Conv2d)]
        for layer in convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        convolutions[-1].weight.mul_(0.01)

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return self.body(degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same; no size needs padding here."""
        features = self.model[:-1](fast_layout(degraded))
        with full_precision(degraded):
            noise: Tensor = self.model[-1](features.to(degraded.dtype))
            return degraded - noise

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that pruning may mask: the kernels between the first and the last layer."""
        kernels = [(name, parameter) for name, parameter in self.named_parameters() if parameter.ndim == 4]
        return kernels[1:-1]
