"""Batches of the training steps: how many crops, how large, from the first step to the last."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data import TrainLoader
from data.cropping import Augmentation
from data.files import Pair
from data.sources import PairSet


class Stage(BaseModel):
    """A part of the training with crops of another size."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    share: float = Field(gt=0, lt=1, description="share of all steps")
    batch: int = Field(ge=1, le=4096, description="crops per step")
    patch: int = Field(ge=4, le=2048, description="side of a crop in pixels")


class CropsConfig(BaseModel):
    """Crops per step and their size, which may grow on the way (progressive patches, arXiv 2111.09881)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    batch: int = Field(16, ge=1, le=4096, description="crops per step")
    patch: int = Field(64, ge=4, le=2048, description="side of a crop in pixels")
    before: tuple[Stage, ...] = Field(
        (), description="stages with other crops, in order, before the steps with `batch` and `patch`"
    )
    parts: int = Field(1, ge=1, le=64, description="micro-batches per step, to save memory; gradients add up")

    @model_validator(mode="after")
    def _leaves_steps_for_the_last_stage(self) -> Self:
        total = sum(stage.share for stage in self.before)
        if total >= 1:
            raise ValueError(f"before: the shares add up to {total:g}; they are to leave steps, so below 1")
        return self

    def stages(self) -> list[Stage]:
        """All stages in order; their shares add up to 1."""
        last = 1.0 - sum(stage.share for stage in self.before)
        return [*self.before, Stage.model_construct(share=last, batch=self.batch, patch=self.patch)]

    @property
    def smallest_patch(self) -> int:
        return min(stage.patch for stage in self.stages())


class Batches:
    """The batch of every step, on the device; a pure function of seed and step.

    For an accelerator the next batch is cut by another thread while the device works on this one, and
    copied from pinned memory without waiting. On a CPU the cores have no time to spare for that.
    """

    def __init__(
        self,
        config: CropsConfig,
        pairs: PairSet,
        augmentation: Augmentation,
        seed: int,
        steps_at: Callable[[float], int],
        device: torch.device,
    ) -> None:
        """`steps_at`: how many steps are done when a share of the training is over."""
        self.steps, self.device = steps_at(1.0), device
        self.stages: list[tuple[int, TrainLoader]] = []
        share = 0.0
        for stage in config.stages():
            share += stage.share
            loader = TrainLoader(
                pairs, batch=stage.batch, patch=stage.patch, augmentation=augmentation, seed=seed
            )
            self.stages.append((steps_at(share), loader))
        self.pool = ThreadPoolExecutor(1) if device.type != "cpu" else None
        self.ahead: dict[int, Future[Pair]] = {}

    def batch(self, step: int) -> Pair:
        """The crops of step `step` (0, 1, 2, ...)."""
        if self.pool is None:
            return self._cut(step)
        pair = self.ahead[step].result() if step in self.ahead else self._cut(step)
        self.ahead = {step + 1: self.pool.submit(self._cut, step + 1)} if step + 1 < self.steps else {}
        return pair.to(self.device, non_blocking=True)

    def _cut(self, step: int) -> Pair:
        loader = next((loader for end, loader in self.stages if step < end), self.stages[-1][1])
        pair = loader.batch(step)
        return (
            Pair(pair.degraded.pin_memory(), pair.clean.pin_memory()) if self.device.type == "cuda" else pair
        )
