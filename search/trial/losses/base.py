"""Objectives that a training step minimises, and image losses, which learn nothing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from data.files import Pair
from search.inference import Precision

# The context in which settings are valid only if the files that they name are there and sound. Elsewhere they
# are valid without: a model is exported from its stored settings long after its training needed the files.
WITH_FILES = {"files": True}


class Objective(nn.Module):
    """A scalar, in float32, from restored images and the pair they belong to.

    Its state dict holds all that it learns, optimizer included, so that a stopped run goes on exactly.
    """

    def forward(self, restored: Tensor, pair: Pair) -> Tensor:
        """The loss of restored images (N, C, H, W), float32, outside autocast."""
        raise NotImplementedError

    def learn(self, restored: Tensor, pair: Pair, share: float) -> None:
        """Add up gradients of its own, from images that carry none; `pair` is a `share` of the batch."""

    def step(self, step: float, steps: int, lr_scale: float) -> None:
        """Called beside each step of the model, with the gradients of the whole batch added up."""


class ImageObjective(Objective):
    """A fixed distance between restored and clean images: nothing to learn."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, restored: Tensor, pair: Pair) -> Tensor:
        loss: Tensor = self.distance(restored, pair.clean)
        return loss


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
        """The smallest side in pixels of crops that the loss can be computed on."""
        return 1
