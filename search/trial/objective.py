"""What a training step minimises, and what else has to learn for it."""

from torch import Tensor, nn

from data import Pair


class Objective(nn.Module):
    """A scalar, in float32, from restored images and the pair they belong to.

    Its state dict holds all that it learns, optimizer included, so that a stopped run goes on exactly.
    """

    def forward(self, restored: Tensor, pair: Pair) -> Tensor:
        """The loss of restored images (N, C, H, W), float32, outside autocast."""
        raise NotImplementedError

    def learn(self, restored: Tensor, pair: Pair, step: int, steps: int) -> None:
        """Called before the loss of step `step` of `steps`, with images that carry no gradient."""


class ImageObjective(Objective):
    """A fixed distance between restored and clean images: nothing to learn."""

    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, restored: Tensor, pair: Pair) -> Tensor:
        loss: Tensor = self.distance(restored, pair.clean)
        return loss
