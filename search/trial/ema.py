"""An exponential moving average of the weights: what validation scores and export writes."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keeps `model`, a frozen copy whose weights follow the trained ones.

    The memory grows with the number of updates n as (1 + n) / (10 + n), up to `decay`: a short run
    is not dragged back to its random start. Buffers (batch-norm statistics) are copied as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        ours: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(ours, theirs, weight)
        for buffer, current in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(current)
