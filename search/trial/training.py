"""The training loop of one trial."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from data.sources import Split
from search.inference import ImageScore, Precision, Score, mean_score, score_pairs
from search.trial.batches import Batches
from search.trial.config import TrialConfig
from search.trial.recovery import Diverged as Diverged
from search.trial.sparsity import Phase, enter_phase
from search.trial.state import State

# Restored values this far outside [0, 1] are an explosion, not a bad start.
EXPLODED = 100.0
# On an accelerator, reading a value back stalls its queue: health is checked at this interval.
CHECK_EVERY = 20
# What a machine that dies costs at most: rungs of a long training lie further apart.
SAVE_EVERY_S = 300.0


class Report(Protocol):
    """Callbacks of a training run. An exception from one of them ends the run and passes through unchanged."""

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        """Called once: training starts at `step`, with the rungs and seconds of an earlier run of the same trial."""

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        """Called after each step; reading `loss` waits for the device."""

    def scored(self, score: Score, dense: bool) -> None:
        """Called at each rung; `dense` is False while weights are held at zero."""

    def rescued(self, note: str) -> None:
        """Called when the trial continues with changed settings after a failure; `note` says why and how."""

    def stop_requested(self) -> bool:
        """True to save the state and leave with `Stopped`."""


class Stopped(Exception):
    """The run was asked to stop. Its state is on disk: the same call continues from there."""


@dataclass(frozen=True)
class TrialResult:
    """Result of a finished run. `score` is over the validation pairs in float32, with the best weights."""

    score: Score
    image_scores: list[ImageScore]
    rungs: list[Score]
    rescues: list[str]
    weights: Path


def train(
    config: TrialConfig, split: Split, device: torch.device, folder: Path, report: Report
) -> TrialResult:
    """Train one configuration from scratch, or from where it was stopped, and score it.

    Writes `best.safetensors` (averaged weights of the best rung) and the resumable state into
    `folder`. Raises `Diverged`, `Stopped`, or whatever `report` raises; the best weights so far
    stay on disk.
    """
    steps = config.total_steps
    batches = Batches(config.crops, split.train, config.augmentation, config.seed, config.steps_at, device)
    rung_pairs = [split.val.whole(i) for i in split.val.representative(config.rung_megapixels)]
    phases = config.sparsity.phases(config.planned_steps)
    rungs = set(config.rungs())
    state = State(config, device, folder, report.rescued)
    report.begun(state.step, state.rungs, state.seconds)

    while state.step < steps:
        phase = next(phase for phase in phases if state.step < config.step_at(phase.last))
        if state.step == config.step_at(phase.first):
            state.mask = enter_phase(phase, state.model, state.average.model, state.optimizer)
        batch = batches.batch(state.step)
        loss, largest = state.backward(batch)
        state.step_optimizers(lr=config.optimizer.lr * _lr_factor(config, phase, state.step))
        is_rung = state.step in rungs
        is_due = is_rung or state.unsaved_seconds > SAVE_EVERY_S
        if (device.type == "cpu" or state.step % CHECK_EVERY == 0 or is_due) and not _healthy(loss, largest):
            state.go_back(
                f"diverged at step {state.step} (loss {loss:g}, largest restored value {largest:g})"
            )
            continue
        report.stepped(state.step, steps, loss)

        if is_rung:
            scores = score_pairs(state.average.model, rung_pairs, state.precision)
            score = mean_score(scores, state.step, state.seconds)
            state.offer(score)
            report.scored(score, dense=phase.sparsity == 0)
        stop = report.stop_requested() and state.step < steps
        if is_due or stop:
            state.save()
        if stop:
            raise Stopped(f"at step {state.step} of {steps}")

    weights = state.take_best_weights()
    val_pairs = (split.val.whole(i) for i in split.val.representative(config.val_megapixels))
    image_scores = score_pairs(state.average.model, val_pairs, Precision("fp32", device))
    return TrialResult(
        score=mean_score(image_scores, state.step, state.seconds),
        image_scores=image_scores,
        rungs=state.rungs,
        rescues=state.rescue.notes,
        weights=weights,
    )


def _lr_factor(config: TrialConfig, phase: Phase, step: int) -> float:
    since = config.planned_step(step) - phase.first
    return phase.lr_scale * config.schedule.factor(since, phase.last - phase.first)


def _healthy(loss: Tensor, largest: Tensor) -> bool:
    return bool(loss.isfinite()) and float(largest) < EXPLODED
