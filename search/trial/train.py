"""The training loop of one trial."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor

from data import Split
from data.loaders import TrainLoader
from search.trial import checkpoint
from search.trial.average import Average
from search.trial.config import TrialConfig
from search.trial.evaluate import ImageScore, Score, evaluate, mean_score, spread
from search.trial.objective import Objective
from search.trial.optimizers import set_learning_rate
from search.trial.precision import Precision
from search.trial.sparsity import Mask, Phase, enter_phase

# Restored values this far outside [0, 1] are an explosion, not a bad start.
EXPLODED = 100.0
# On an accelerator, reading a value back stalls its queue: health is checked at this interval.
CHECK_EVERY = 20


class Report(Protocol):
    """Who watches a training run. Anything it raises ends the run and passes through untouched."""

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        """Called once: training starts at `step`, with what an earlier sitting has behind it."""

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        """Called after each step; reading `loss` waits for the device."""

    def scored(self, score: Score, settled: bool) -> None:
        """Called at each rung; `settled` is False while weights are held at zero."""

    def stop_requested(self) -> bool:
        """True to save the state and leave with `Stopped`."""


class Stopped(Exception):
    """The run was asked to stop. Its state is on disk: the same call goes on from there."""


class Diverged(Exception):
    """The loss or the restored images are not finite, or far from any image."""


@dataclass(frozen=True)
class TrialResult:
    """What a finished run achieved. `score` is over the validation pairs in float32, with the best weights."""

    score: Score
    image_scores: list[ImageScore]
    rungs: list[Score]
    weights: Path


def train(
    config: TrialConfig, split: Split, device: torch.device, folder: Path, report: Report
) -> TrialResult:
    """Train one configuration from scratch, or from where it was stopped, and score it.

    Writes `best.safetensors` (averaged weights of the best rung) and the resumable state into
    `folder`. Raises `Diverged`, `Stopped`, or whatever `report` raises; the best weights so far
    stay on disk.
    """
    torch.manual_seed(config.seed)
    train_pairs = TrainLoader(
        split.train,
        batch=config.crops.batch,
        patch=config.crops.patch,
        augmentation=config.augmentation,
        seed=config.seed,
    )
    val_pairs = [split.val.whole(i) for i in spread(split.val, config.val_megapixels)]
    rung_pairs = [split.val.whole(i) for i in spread(split.val, config.rung_megapixels)]
    model = config.model.build().to(device)
    optimizer = config.optimizer.build(model)
    precision = Precision(config.precision, device)
    objective = config.loss.objective_for(config.model.channels, precision)
    run = _Run(config, model, Average(model, config.ema_decay), optimizer, precision, objective, folder)
    rungs = set(config.rungs())
    report.begun(run.step, run.rungs, run.seconds)

    for phase in config.sparsity.phases(config.total_steps):
        for step in phase.steps(run.step):
            if step == phase.first:
                run.mask = enter_phase(phase, model, run.average.model, optimizer)
            set_learning_rate(optimizer, config.optimizer.lr * _lr_factor(config, phase, step))
            pair = train_pairs.batch(step).to(device)
            model.train()
            with precision.forward():
                restored = model(pair.degraded)
            restored = restored.float()
            objective.learn(restored.detach(), pair, step, config.total_steps)
            loss = objective(restored, pair)
            precision.step(loss, model, optimizer, run.mask, max_norm=config.clip_norm)
            run.average.update(model)
            run.mask.zero_copy(run.average.model)
            run.step = step + 1
            if device.type == "cpu" or run.step % CHECK_EVERY == 0 or run.step in rungs:
                _check_health(loss, restored, run.step)
            report.stepped(run.step, config.total_steps, loss.detach())

            if run.step in rungs:
                score = mean_score(evaluate(run.average.model, rung_pairs, precision), run.step, run.seconds)
                run.offer(score)
                report.scored(score, settled=phase.sparsity == 0)
                run.save()
            if report.stop_requested() and run.step < config.total_steps:
                run.save()
                raise Stopped(f"at step {run.step} of {config.total_steps}")

    return run.finish(val_pairs)


def _lr_factor(config: TrialConfig, phase: Phase, step: int) -> float:
    return phase.lr_scale * config.schedule.factor(step - phase.first, phase.last - phase.first)


def _check_health(loss: Tensor, restored: Tensor, step: int) -> None:
    largest = float(restored.detach().abs().amax())
    value = float(loss.detach())
    if not (abs(value) < float("inf") and largest < EXPLODED):
        raise Diverged(f"diverged at step {step}: loss {value:g}, largest restored value {largest:g}")


class _Run:
    """What changes while a trial trains, and how it goes to disk and back."""

    def __init__(
        self,
        config: TrialConfig,
        model: torch.nn.Module,
        average: Average,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        objective: Objective,
        folder: Path,
    ) -> None:
        self.config, self.model, self.average, self.optimizer = config, model, average, optimizer
        self.precision, self.objective, self.folder = precision, objective, folder
        self.mask = Mask({})
        self.step = 0
        self.rungs: list[Score] = []
        self.started = time.monotonic()
        self.fingerprint = checkpoint.fingerprint(config.model_dump_json())
        folder.mkdir(parents=True, exist_ok=True)
        if state := checkpoint.load_state(folder, self.fingerprint):
            self._restore(state)
        else:  # weights without a state are those of another trial
            (folder / checkpoint.BEST).unlink(missing_ok=True)

    @property
    def seconds(self) -> float:
        """Time spent in this run, earlier sittings included."""
        return time.monotonic() - self.started

    def offer(self, score: Score) -> None:
        """Keep the averaged weights if this is the best rung so far."""
        if all(score.psnr_db > earlier.psnr_db for earlier in self.rungs):
            checkpoint.save_weights(self.folder / checkpoint.BEST, self.average.model)
        self.rungs.append(score)

    def save(self) -> None:
        checkpoint.save_state(
            self.folder,
            {
                "config": self.fingerprint,
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.model.state_dict(),
                "updates": self.average.updates,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "objective": self.objective.state_dict(),
                "mask": self.mask.state(),
                "rungs": [asdict(score) for score in self.rungs],
                "random": torch.get_rng_state(),
                "seconds": self.seconds,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.objective.load_state_dict(state["objective"])
        prunable: Callable[[], list[tuple[str, torch.nn.Parameter]]] = self.model.prunable  # type: ignore[assignment]
        self.mask = Mask.from_state(prunable(), state["mask"])
        self.rungs = [Score(**score) for score in state["rungs"]]
        torch.set_rng_state(state["random"])
        self.started -= state["seconds"]

    def finish(self, val_pairs: list[Any]) -> TrialResult:
        """Score the best weights on the validation pairs, in float32."""
        weights = self.folder / checkpoint.BEST
        best = self.average.model
        if not self.rungs:  # no steps: the model is scored as it is
            checkpoint.save_weights(weights, best)
        checkpoint.load_weights(weights, best)
        image_scores = evaluate(best, val_pairs, Precision("fp32", self.precision.device))
        checkpoint.drop_state(self.folder)
        return TrialResult(
            score=mean_score(image_scores, self.step, self.seconds),
            image_scores=image_scores,
            rungs=self.rungs,
            weights=weights,
        )


def memory_mb(device: torch.device) -> float:
    """Peak memory held on an accelerator; on a CPU what is resident in this process right now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20
