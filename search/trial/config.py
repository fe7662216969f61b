"""TrialConfig: all that one training run depends on."""

import json
import math
from functools import cached_property, lru_cache
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data import DataConfig, DemoConfig
from data.augmentation import Augmentation
from models import ClassicalConfig, ModelConfig
from models.cost import count_macs
from search.trial.adversarial import AdversarialConfig, ObjectiveConfig
from search.trial.batches import CropsConfig
from search.trial.initial import InitialConfig
from search.trial.losses import L1Config
from search.trial.optimizers import AdamWConfig, OptimizerConfig
from search.trial.precision import PrecisionName
from search.trial.schedules import MOST_WARMUP, ConstantCooldownConfig, ScheduleConfig
from search.trial.sparsity import DenseConfig, SparsityConfig

BACKWARD_COST = 3  # a backward pass costs about two forward passes (gradients of inputs and of weights)


@lru_cache(maxsize=1000)
def forward_macs(model: ModelConfig, side: int) -> int:
    """Multiply-adds for a square image, counted once per model and size: that takes a tenth of a second."""
    return count_macs(model.build(), model.channels, side, side)


class Compute(BaseModel):
    """A training length by its cost: small and large models get equal work instead of equal steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    teramacs: float = Field(gt=0, description="10^12 multiply-adds of forward and backward passes together")


Steps = Annotated[int, Field(ge=0)] | Compute
Share = Annotated[float, Field(gt=0, lt=1)]


class TrialConfig(BaseModel):
    """One training run. Two runs of equal configs on one CPU machine give equal scores, bit for bit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ModelConfig
    data: DataConfig = DemoConfig()
    steps: Steps = Field(
        description="optimizer steps, or { teramacs = ... } for equal compute; 0 scores the model as it is"
    )
    crops: CropsConfig = CropsConfig()
    initial: InitialConfig | None = Field(None, description="weights to start from; none: random ones")
    loss: ObjectiveConfig = L1Config()
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = ConstantCooldownConfig()
    sparsity: SparsityConfig = DenseConfig()
    augmentation: Augmentation = Augmentation()
    precision: PrecisionName = Field("auto", description="auto, fp32, bf16 or fp16 for forward passes")
    compile: bool = Field(
        False,
        description="torch.compile the model for training steps: minutes to start, for long runs on a GPU",
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="memory of the averaged weights, per step")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient of all weights together")
    evaluations: int = Field(8, ge=1, le=1000, description="rungs: scores on the way, evenly spaced")
    pauses: tuple[Share, ...] = Field((), description="further rungs, as shares of the steps")
    rung_megapixels: float = Field(1.0, gt=0, description="most validation pixels scored at a rung, in 10^6")
    val_megapixels: float = Field(
        20.0, gt=0, description="most validation pixels scored at the end of a trial, in 10^6"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of weights, crops and augmentation")

    @model_validator(mode="after")
    def _steps_have_something_to_train(self) -> Self:
        if isinstance(self.model, ClassicalConfig) and self.steps != 0:
            raise ValueError("steps: a classical filter has nothing to train; allowed: 0")
        return self

    @model_validator(mode="after")
    def _loss_can_judge_the_crops(self) -> Self:
        smallest, patch = self.loss.smallest_patch, self.crops.smallest_patch
        if patch < smallest:
            raise ValueError(
                f"crops.patch is {patch}, but loss {self.loss.kind!r} as set needs {smallest} or more"
            )
        return self

    @cached_property
    def teramacs_per_step(self) -> float:
        """10^12 multiply-adds of one training step, forward and backward, networks of the loss included.

        The mean over all steps, where crops change on the way.
        """
        macs = 0.0
        for stage in self.crops.stages():
            forward = forward_macs(self.model, stage.patch)
            per_crop = BACKWARD_COST * forward + self.loss.macs(self.model.channels, stage.patch)
            macs += stage.share * stage.batch * per_crop
        return macs / 1e12

    @cached_property
    def total_steps(self) -> int:
        """The number of optimizer steps of the whole run."""
        if isinstance(self.steps, Compute):
            return max(1, round(self.steps.teramacs / self.teramacs_per_step))
        return self.steps

    def rungs(self) -> dict[int, int]:
        """Steps done at which the model is scored, each with its share of the run in percent.

        The shares are the same for runs of any length, so that their scores compare; the last rung is
        `total_steps`, 100. A run of fewer steps than evaluations has a rung at every step, one of no
        steps has none.
        """
        shares = sorted({*self.pauses, *(n / self.evaluations for n in range(1, self.evaluations + 1))})
        return {self.steps_at(share): round(100 * share) for share in shares if self.total_steps}

    def steps_at(self, share: float) -> int:
        """Steps done when `share` of the run is over: at least one, if there are any."""
        return min(max(1, round(self.total_steps * share)), self.total_steps)

    @property
    def stretchable(self) -> bool:
        """Whether the steps before the cooldown are the same for a run of any length."""
        return (
            isinstance(self.schedule, ConstantCooldownConfig)
            and isinstance(self.sparsity, DenseConfig)
            and not isinstance(self.loss, AdversarialConfig)
            and not self.crops.before
        )

    @property
    def constant_steps(self) -> int:
        """Steps before the cooldown of a stretchable run; none of a run that is not."""
        assert isinstance(self.schedule, ConstantCooldownConfig)
        share = 1 - self.schedule.cooldown * (1 - self.schedule.warmup)
        # A cooldown that was made to begin at a step begins there, however the shares were rounded.
        return math.floor(self.total_steps * share + 1e-6)

    @property
    def fewest_steps(self) -> int:
        """The shortest that a stretchable run can be made: its warm-up, as long as ever, is less than half of it."""
        assert isinstance(self.schedule, ConstantCooldownConfig)
        return math.floor(self.schedule.warmup * self.total_steps / MOST_WARMUP) + 1

    def stretched(self, steps: int, constant_steps: int | None = None) -> Self:
        """The same run with another length; with another start of its cooldown too, if given.

        It has the steps of this one until either cools down. Only for `stretchable` runs, and `fewest_steps` at least.
        """
        assert self.stretchable
        assert isinstance(self.schedule, ConstantCooldownConfig)
        warmup = self.schedule.warmup * self.total_steps / steps
        cooldown = self.schedule.cooldown
        if constant_steps is not None:
            cooldown = (1 - constant_steps / steps) / (1 - warmup)
        schedule = self.schedule.model_dump() | {"warmup": warmup, "cooldown": cooldown}
        return type(self).model_validate({**self.model_dump(), "steps": steps, "schedule": schedule})

    @property
    def past(self) -> str:
        """All that the steps before a cooldown depend on, as JSON: equal for a run and its stretched forms."""
        tree = self.model_dump(mode="json")
        if self.stretchable:
            # The product of share and steps is the same but for rounding.
            tree["schedule"]["warmup"] = f"{self.schedule.warmup * self.total_steps:.6g}"
            del tree["schedule"]["cooldown"], tree["steps"]
        return json.dumps(tree, sort_keys=True)
