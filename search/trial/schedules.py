"""Learning-rate curves: pure functions from step to a factor in [0, 1]. None climbs after its warm-up."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Curve(BaseModel):
    """A warm-up, then a curve. `factor(step, steps)` is the share of the peak learning rate at `step`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    warmup: float = Field(
        0.0, ge=0, le=0.5, description="share of the steps in which the rate rises from zero"
    )

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak rate at `step` of `steps`; steps past the end keep the last value."""
        warmup_steps = self.warmup * steps
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / (steps - warmup_steps)
        return self.after_warmup(min(progress, 1.0))

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


ScheduleConfig = Annotated[
    CosineConfig | CosineHoldConfig | ExponentialConfig | ConstantCooldownConfig, Field(discriminator="kind")
]


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
