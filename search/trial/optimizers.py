"""Optimizers and their settings."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class AdamWConfig(BaseModel):
    """Adam with decoupled weight decay (arXiv 1711.05101); with a decay of 0 it is Adam."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decay per step, in units of the learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="memory of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="memory of the squared gradient")

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """One group decays (kernels and matrices), one does not (norms, biases, scales)."""
        kernels = [p for p in model.parameters() if _is_kernel(p)]
        others = [p for p in model.parameters() if not _is_kernel(p)]
        groups = [
            {"params": kernels, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), fused=True)


OptimizerConfig = AdamWConfig


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _is_kernel(parameter: nn.Parameter) -> bool:
    return sum(size > 1 for size in parameter.shape) >= 2
