"""Optimizers, their settings, and a step with clipped and masked gradients."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from search.inference import Precision
from search.trial.sparsity import Mask


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decay per step, in units of the learning rate")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer of two groups: one decays (kernels and matrices), one does not (norms, biases, scales)."""
        raise NotImplementedError

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        kernels = [p for p in model.parameters() if _is_kernel(p)]
        others = [p for p in model.parameters() if not _is_kernel(p)]
        return [
            {"params": kernels, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]


class _AdaptiveSettings(_Settings):
    beta1: float = Field(0.9, ge=0, lt=1, description="memory of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="memory of the squared gradient")

    @property
    def betas(self) -> tuple[float, float]:
        return self.beta1, self.beta2


class AdamWConfig(_AdaptiveSettings):
    """Adam with decoupled weight decay (arXiv 1711.05101); with a decay of 0 it is Adam."""

    kind: Literal["adamw"] = "adamw"

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.groups(model), lr=self.lr, betas=self.betas, fused=True)


class AdamConfig(_AdaptiveSettings):
    """Adam (arXiv 1412.6980), whose decay is part of the gradient and so of its moments: an L2 penalty."""

    kind: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0, le=1, description="weights are added to the gradient, times this")

    def build(self, model: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(self.groups(model), lr=self.lr, betas=self.betas, fused=True)


class NAdamConfig(_AdaptiveSettings):
    """Adam with Nesterov's momentum (Dozat, ICLR workshop 2016), and decoupled weight decay as in AdamW."""

    kind: Literal["nadam"] = "nadam"

    def build(self, model: nn.Module) -> torch.optim.NAdam:
        # Torch has no fused kernel for it.
        return torch.optim.NAdam(
            self.groups(model), lr=self.lr, betas=self.betas, decoupled_weight_decay=True, foreach=True
        )


class SGDConfig(_Settings):
    """Gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.1, gt=0, le=1, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="weights are added to the gradient, times this")
    momentum: float = Field(0.9, ge=0, lt=1, description="memory of the sum of gradients")
    nesterov: bool = Field(True, description="look ahead by one step of momentum")

    @model_validator(mode="after")
    def _looks_ahead_with_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; allowed without: nesterov = false")
        return self

    def build(self, model: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(
            self.groups(model), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )


OptimizerConfig = Annotated[AdamWConfig | AdamConfig | NAdamConfig | SGDConfig, Field(discriminator="kind")]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def masked_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision, mask: Mask, max_norm: float
) -> None:
    """Unscale, mask, clip, step and mask again, in this order.

    Clipping comes after unscaling because `max_norm` is meant in units of the true gradient, and
    after masking because weights held at zero must not use up the norm. The weights are masked
    again also when an fp16 overflow made the scaler skip the step.
    """
    precision.scaler.unscale_(optimizer)
    mask.zero_gradients()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm, foreach=True)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    mask.zero_weights()


def _is_kernel(parameter: nn.Parameter) -> bool:
    return sum(size > 1 for size in parameter.shape) >= 2
