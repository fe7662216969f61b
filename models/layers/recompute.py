"""Activation checkpointing: blocks that keep only their input for the gradients and compute the rest again."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A block that trains with less memory and more time where `recompute` is set (arXiv 1604.06174).

    The gradients are the same bits: the second computation sees the same random numbers and precision.
    """

    recompute = False

    def forward(self, features: Tensor) -> Tensor:
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(self.compute, features, use_reentrant=False)  # type: ignore[no-any-return]
        return self.compute(features)

    def compute(self, features: Tensor) -> Tensor:
        """Output of the block for `features`."""
        raise NotImplementedError
