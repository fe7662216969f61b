"""Classical filters with the interface of a network: models that need no training."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.filters import FilterConfig, NonLocalMeans


class ClassicalConfig(BaseModel):
    """A filter and its settings. There is nothing to train: a recipe with it has `steps = 0`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["classical"] = "classical"
    channels: Literal[1, 3] = Field(3, description="image channels: 1 (gray) or 3 (colour)")
    filter: FilterConfig = Field(NonLocalMeans(), description="the filter, by its kind, with its settings")

    def build(self) -> "Classical":
        return Classical(self)


class Classical(nn.Module):
    """A filter with the interface of a network: no parameters, no gradients, no graph to export."""

    size_multiple = 1

    def __init__(self, config: ClassicalConfig) -> None:
        super().__init__()
        self.filter = config.filter

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1.

        Computed on the CPU, image by image, wherever the tensor is.
        """
        images = degraded.detach().permute(0, 2, 3, 1).cpu().float().contiguous().numpy()
        restored = np.stack([self.filter.apply(image) for image in images])
        return torch.from_numpy(restored).permute(0, 3, 1, 2).contiguous().to(degraded.device)

    def body(self, degraded: Tensor) -> Tensor:
        """The same; no size needs padding here."""
        return self.forward(degraded)

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        """Nothing."""
        return []
