"""Training losses between restored and clean images, and their settings."""

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from search.trial.objective import ImageObjective, Objective
from search.trial.precision import Precision


class ImageLossConfig(BaseModel):
    """Settings of a loss that needs the restored and the clean image and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def build(self) -> nn.Module:
        """The loss: restored and clean (N, C, H, W) in, a scalar out."""
        raise NotImplementedError

    def objective_for(self, channels: Literal[1, 3], precision: Precision) -> Objective:
        return ImageObjective(self.build().to(precision.device))

    def macs(self, channels: Literal[1, 3], patch: int) -> int:
        """Multiply-adds of networks inside the loss, per crop and training step."""
        return 0

    @property
    def smallest_patch(self) -> int:
        """The smallest side in pixels of crops that the loss can judge."""
        return 1


class L1Config(ImageLossConfig):
    """Mean absolute error."""

    kind: Literal["l1"] = "l1"

    def build(self) -> nn.Module:
        return nn.L1Loss()


class MSEConfig(ImageLossConfig):
    """Mean squared error."""

    kind: Literal["mse"] = "mse"

    def build(self) -> nn.Module:
        return nn.MSELoss()


class CharbonnierConfig(ImageLossConfig):
    """A smooth L1: sqrt(difference^2 + epsilon^2), averaged."""

    kind: Literal["charbonnier"] = "charbonnier"
    epsilon: float = Field(
        1e-3, gt=0, le=1, description="width of the rounded tip, in units of image intensity"
    )

    def build(self) -> nn.Module:
        return Charbonnier(self.epsilon)


class PSNRConfig(ImageLossConfig):
    """Negative PSNR in dB, per image (the loss of NAFNet's published recipes)."""

    kind: Literal["psnr"] = "psnr"

    def build(self) -> nn.Module:
        return NegativePSNR()


LossConfig = Annotated[L1Config | MSEConfig | CharbonnierConfig | PSNRConfig, Field(discriminator="kind")]


class Charbonnier(nn.Module):
    """mean(sqrt((restored - clean)^2 + epsilon^2)); a scalar (Lai et al., arXiv 1710.01992)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return torch.sqrt((restored - clean).square() + self.epsilon**2).mean()


class NegativePSNR(nn.Module):
    """Mean over the batch of 10 log10(MSE of one image), in dB, for images in [0, 1]; a scalar.

    1e-8 inside the logarithm bounds it at -80 dB, so identical images have a finite gradient.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        squared_error = (restored - clean).square().flatten(1).mean(1)
        return (10 / math.log(10)) * torch.log(squared_error + 1e-8).mean()
