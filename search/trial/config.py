"""TrialConfig: all that one training run depends on."""

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data import DataConfig
from data.cropping import Augmentation
from data.demo import DemoConfig
from models import ClassicalConfig, ModelConfig, count_macs
from search.inference import PrecisionName
from search.trial.batches import CropsConfig
from search.trial.initial_weights import InitialConfig
from search.trial.length import Mark, StepMapping
from search.trial.losses import ObjectiveConfig
from search.trial.losses.pixel import L1Config
from search.trial.optimizers import AdamWConfig, OptimizerConfig
from search.trial.schedules import ConstantCooldownConfig, ScheduleConfig
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
    tempo: StepMapping | None = Field(
        None, description="where the length was changed on the way: a search does that to fit the time left"
    )

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

    @model_validator(mode="after")
    def _tempo_leads_to_the_end(self) -> Self:
        if self.tempo is not None:
            if isinstance(self.steps, Compute):
                raise ValueError("tempo: goes with a number of steps, not with teramacs")
            if self.tempo.step_at(self.tempo.planned) != self.steps:
                raise ValueError(
                    f"tempo: leads to {self.tempo.step_at(self.tempo.planned)} steps, not {self.steps}"
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
        return self.step_at(min(max(1, round(self.planned_steps * share)), self.planned_steps))

    @property
    def planned_steps(self) -> int:
        """The steps that the run had before its length was changed on the way."""
        return self.tempo.planned if self.tempo else self.total_steps

    def planned_step(self, step: int) -> float:
        """The step of the planned run that a step of this run corresponds to."""
        return self.tempo.planned_step(step) if self.tempo else step

    def step_at(self, planned_step: int) -> int:
        """The first step of this run that stands for `planned_step` or more."""
        return min(self.tempo.step_at(planned_step), self.total_steps) if self.tempo else planned_step

    def with_length(self, steps: int, since: int) -> Self:
        """The same run up to step `since`; the rest of the plan is compressed or stretched to end at `steps`."""
        tempo = (self.tempo or StepMapping(planned=self.total_steps)).with_length(steps, since)
        return self.with_step_mapping(steps, tempo.marks)

    def with_step_mapping(self, steps: int, marks: Sequence[Mark]) -> Self:
        """The planned run in `steps` steps, with these marks of its step mapping."""
        tempo = {"planned": self.planned_steps, "marks": marks}
        return type(self).model_validate({**self.model_dump(), "steps": steps, "tempo": tempo})

    @property
    def length(self) -> tuple[int, tuple[Mark, ...]]:
        """Arguments that `with_step_mapping` takes to make this run of the planned one."""
        return self.total_steps, self.tempo.marks if self.tempo else ()

    def as_planned(self, **changes: object) -> Self:
        """The run as it was planned, with these changes."""
        plan = {"steps": self.planned_steps, "tempo": None}
        return type(self).model_validate({**self.model_dump(), **plan, **changes})

    def past(self, step: int) -> str:
        """All that the steps before `step` depend on, as JSON: equal for runs whose lengths change later."""
        tree = self.model_dump(mode="json", exclude={"steps", "tempo"})
        marks = [mark for mark in self.tempo.marks if mark[0] < step] if self.tempo else []
        return json.dumps({**tree, "planned_steps": self.planned_steps, "marks": marks}, sort_keys=True)
