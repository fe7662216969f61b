"""Plans dense and sparse training phases, and keeps the masks. Dense-sparse-dense: arXiv 1607.04381."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn


@dataclass(frozen=True)
class Phase:
    """Steps `first` up to, not including, `last`, with a share of the weights held at zero."""

    name: str
    first: int
    last: int
    sparsity: float
    lr_scale: float


class DenseConfig(BaseModel):
    """Ordinary training: one dense phase."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["dense"] = "dense"

    def phases(self, steps: int) -> list[Phase]:
        return [Phase("dense", 0, steps, sparsity=0.0, lr_scale=1.0)]


class DSDConfig(BaseModel):
    """Dense, then with the smallest weights held at zero, then dense again from zero.

    Each phase anneals anew from its own share of the peak rate, as in table 2 of the paper. With
    `sparsity = 0` the same phases and rates stay, so that is the dense control of equal steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["dsd"] = "dsd"
    sparsity: float = Field(
        0.3, ge=0, lt=1, description="share of each kernel held at zero in the sparse phase"
    )
    dense_share: float = Field(0.6, gt=0, lt=1, description="share of the steps in the first dense phase")
    sparse_share: float = Field(0.15, gt=0, lt=1, description="share of the steps in the sparse phase")
    sparse_lr: float = Field(
        0.1, gt=0, le=1, description="share of the peak rate at the start of the sparse phase"
    )
    redense_lr: float = Field(
        0.1, gt=0, le=1, description="share of the peak rate at the start of the last phase"
    )

    @model_validator(mode="after")
    def _leaves_a_last_phase(self) -> Self:
        if self.dense_share + self.sparse_share >= 1:
            raise ValueError(
                f"dense_share ({self.dense_share}) and sparse_share ({self.sparse_share}) "
                "must leave steps for the last dense phase: their sum is to be below 1"
            )
        return self

    def phases(self, steps: int) -> list[Phase]:
        prune = round(steps * self.dense_share)
        revive = round(steps * (self.dense_share + self.sparse_share))
        return [
            Phase("dense", 0, prune, sparsity=0.0, lr_scale=1.0),
            Phase("sparse", prune, revive, sparsity=self.sparsity, lr_scale=self.sparse_lr),
            Phase("re-dense", revive, steps, sparsity=0.0, lr_scale=self.redense_lr),
        ]


SparsityConfig = Annotated[DenseConfig | DSDConfig, Field(discriminator="kind")]


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """True where a weight survives pruning by magnitude.

    Keeps the largest `1 - sparsity` share by absolute value (section 2 of the paper). Same shape as
    `weight`; ties are cut arbitrarily, so the share is exact to one weight.
    """
    dropped = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[weight.detach().abs().flatten().topk(dropped, largest=False).indices] = False
    return mask.view_as(weight)


class Mask:
    """The weights that are not held at zero. An empty mask keeps all of them.

    Gradients are masked so that clipping and moments see the sparse network, weights because
    decay and fused steps may still move them, and the moments once, when the mask is laid on.
    """

    def __init__(self, kept: dict[str, tuple[nn.Parameter, Tensor]]) -> None:
        self.kept = kept

    @classmethod
    def by_magnitude(cls, prunable: Iterable[tuple[str, nn.Parameter]], sparsity: float) -> "Mask":
        """A mask for each prunable parameter, each with the same sparsity."""
        if sparsity == 0:
            return cls({})
        return cls({name: (p, magnitude_mask(p, sparsity)) for name, p in prunable})

    @classmethod
    def from_state(cls, prunable: Iterable[tuple[str, nn.Parameter]], state: dict[str, Tensor]) -> "Mask":
        """The mask that `state()` described, laid on the parameters of the same names."""
        return cls({name: (p, state[name].to(p.device)) for name, p in prunable if name in state})

    def state(self) -> dict[str, Tensor]:
        return {name: kept for name, (_, kept) in self.kept.items()}

    def zero_gradients(self) -> None:
        for parameter, kept in self.kept.values():
            if parameter.grad is not None:
                parameter.grad.mul_(kept)

    @torch.no_grad()
    def zero_weights(self) -> None:
        for parameter, kept in self.kept.values():
            parameter.mul_(kept)

    @torch.no_grad()
    def zero_copy(self, model: nn.Module) -> None:
        """Lay the mask on a copy of the model it was made for."""
        for name, (_, kept) in self.kept.items():
            model.get_parameter(name).mul_(kept)


def enter_phase(
    phase: Phase, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> Mask:
    """Prune or revive at the start of a phase; the mask to hold during it.

    The optimizer starts from fresh state in every phase: stale moments would push weights that
    are held at zero, and a revived weight under a large step count would first move by
    (1 - beta1) / sqrt(1 - beta2), about 3 times the learning rate.
    """
    optimizer.state.clear()
    mask = Mask.by_magnitude(model.prunable(), phase.sparsity)  # type: ignore[operator]
    mask.zero_weights()
    mask.zero_copy(averaged)
    return mask
