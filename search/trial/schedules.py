"""Learning-rate curves: pure functions from step to a factor in [0, 1]. Only restarts climb after a warm-up."""

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_WARMUP = 0.5


class _Curve(BaseModel):
    """A warm-up, then a curve. `factor(step, steps)` is the share of the peak learning rate at `step`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    warmup: float = Field(
        0.0, ge=0, le=MOST_WARMUP, description="share of the steps in which the rate rises from zero"
    )

    def factor(self, step: float, steps: int) -> float:
        """Share of the peak rate at `step` of `steps`; steps past the end keep the last value."""
        warmup_steps = self.warmup * steps
        if step < warmup_steps:
            return self.during_warmup((step + 1) / (warmup_steps + 1))
        progress = (step - warmup_steps) / (steps - warmup_steps)
        return self.after_warmup(min(progress, 1.0))

    def during_warmup(self, progress: float) -> float:
        """The way up, for progress in (0, 1]; at 1 it would reach the peak."""
        return progress

    def after_warmup(self, progress: float) -> float:
        """The curve itself, for progress in [0, 1]."""
        raise NotImplementedError


class CosineConfig(_Curve):
    """Half a cosine down to `final`, and no further (arXiv 1608.03983 without its restarts)."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, le=1, description="share of the peak rate at the end")

    def after_warmup(self, progress: float) -> float:
        return self.final + (1 - self.final) * _half_cosine(progress)


class CosineHoldConfig(_Curve):
    """A cosine that would reach zero at `descent`, held at `hold` from where it meets that value."""

    kind: Literal["cosine_hold"] = "cosine_hold"
    descent: float = Field(
        0.75, gt=0, le=1, description="share of the steps in which a full cosine would reach zero"
    )
    hold: float = Field(0.2, ge=0, le=1, description="share of the peak rate kept to the end")

    def after_warmup(self, progress: float) -> float:
        return max(self.hold, _half_cosine(min(progress / self.descent, 1.0)))


class ExponentialConfig(_Curve):
    """Equal ratios from one step to the next, down to `final`."""

    kind: Literal["exponential"] = "exponential"
    final: float = Field(0.01, gt=0, le=1, description="share of the peak rate at the end")

    def after_warmup(self, progress: float) -> float:
        return float(self.final**progress)


class ConstantCooldownConfig(_Curve):
    """Constant, then 1 - sqrt down to zero (arXiv 2405.18392, section 3): runs of unlike length compare fairly."""

    kind: Literal["constant_cooldown"] = "constant_cooldown"
    cooldown: float = Field(0.25, ge=0, le=1, description="share of the steps spent going down at the end")

    def after_warmup(self, progress: float) -> float:
        remaining = 1 - progress
        if remaining >= self.cooldown:
            return 1.0
        return 1 - math.sqrt(1 - remaining / self.cooldown)


class StepConfig(_Curve):
    """Constant between milestones, and multiplied by `drop` at each of them."""

    kind: Literal["step"] = "step"
    milestones: tuple[float, ...] = Field(
        (0.5, 0.75), min_length=1, max_length=20, description="shares of the steps after which the rate drops"
    )
    drop: float = Field(0.1, gt=0, le=1, description="what the rate is multiplied by at each milestone")

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if not all(earlier < later for earlier, later in pairwise((0.0, *self.milestones, 1.0))):
            raise ValueError(
                f"milestones {list(self.milestones)}: allowed are rising shares, each above 0 and below 1"
            )
        return self

    def after_warmup(self, progress: float) -> float:
        return float(self.drop ** sum(progress >= milestone for milestone in self.milestones))


class OneCycleConfig(_Curve):
    """Half a cosine up, then half a cosine down (super-convergence, arXiv 1708.07120, section 3).

    The paper's cycle has straight sides; cosines are what its later implementations made of them.
    Momentum stays as it is.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(0.3, ge=0, le=0.9, description="share of the steps in which the rate rises")
    initial: float = Field(0.04, ge=0, le=1, description="share of the peak rate from which it rises")
    final: float = Field(0.0, ge=0, le=1, description="share of the peak rate at the end")

    def during_warmup(self, progress: float) -> float:
        return self.initial + (1 - self.initial) * (1 - _half_cosine(progress))

    def after_warmup(self, progress: float) -> float:
        return self.final + (1 - self.final) * _half_cosine(progress)


class WarmRestartsConfig(_Curve):
    """Several cosines one after another, each from a lower peak (SGDR, arXiv 1608.03983, equation 5).

    The lengths of the cycles grow by `growth` (T_mult of the paper) and fill the steps exactly, so
    that the run ends at the foot of a cycle. The paper's peaks are all equal: a `decay` of 1.
    """

    kind: Literal["warm_restarts"] = "warm_restarts"
    cycles: int = Field(3, ge=1, le=20, description="number of cosines")
    growth: float = Field(2.0, ge=1, le=10, description="length of a cycle in units of the one before")
    decay: float = Field(0.7, gt=0, le=1, description="peak of a cycle in units of the one before")
    final: float = Field(0.0, ge=0, le=1, description="foot of a cycle in units of its peak")

    def after_warmup(self, progress: float) -> float:
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        cycle, position = 0, progress * sum(lengths)
        # Steps that fall on a restart are meant to be its first, whichever way the shares were rounded.
        while cycle < self.cycles - 1 and position >= lengths[cycle] * (1 - 1e-9):
            position -= lengths[cycle]
            cycle += 1
        share = min(max(position / lengths[cycle], 0.0), 1.0)
        return self.decay**cycle * (self.final + (1 - self.final) * _half_cosine(share))


ScheduleConfig = Annotated[
    CosineConfig
    | CosineHoldConfig
    | ExponentialConfig
    | ConstantCooldownConfig
    | StepConfig
    | OneCycleConfig
    | WarmRestartsConfig,
    Field(discriminator="kind"),
]


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
