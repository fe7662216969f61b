"""List of all losses between images, and weighted sums of them."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from search.trial.losses.base import ImageLossConfig
from search.trial.losses.perceptual import PerceptualConfig
from search.trial.losses.pixel import (
    CharbonnierConfig,
    FourierConfig,
    GradientConfig,
    L1Config,
    MSEConfig,
    MSSSIMConfig,
    PSNRConfig,
    SSIMConfig,
)

SingleLossConfig = Annotated[
    L1Config
    | MSEConfig
    | CharbonnierConfig
    | PSNRConfig
    | SSIMConfig
    | MSSSIMConfig
    | GradientConfig
    | FourierConfig
    | PerceptualConfig,
    Field(discriminator="kind"),
]


class TermConfig(BaseModel):
    """One loss in a sum."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    weight: float = Field(1.0, gt=0, le=1e5, description="its factor")
    loss: SingleLossConfig


class SumConfig(ImageLossConfig):
    """A weighted sum of losses, each under a name of your choice."""

    kind: Literal["sum"] = "sum"
    terms: dict[str, TermConfig] = Field(min_length=1, description="name = { weight = 1.0, loss = { ... } }")

    def build(self) -> nn.Module:
        return WeightedSum({name: (term.weight, term.loss.build()) for name, term in self.terms.items()})

    def macs(self, channels: Literal[1, 3], patch: int) -> int:
        return sum(term.loss.macs(channels, patch) for term in self.terms.values())

    @property
    def smallest_patch(self) -> int:
        return max(term.loss.smallest_patch for term in self.terms.values())


LossConfig = Annotated[SingleLossConfig | SumConfig, Field(discriminator="kind")]


class WeightedSum(nn.Module):
    """The sum of weight * loss over named terms; a scalar."""

    def __init__(self, terms: Mapping[str, tuple[float, nn.Module]]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms.values()]
        self.losses = nn.ModuleList(loss for _, loss in terms.values())

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        losses = torch.stack([loss(restored, clean) for loss in self.losses])
        return (losses * losses.new_tensor(self.weights)).sum()
