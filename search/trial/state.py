"""State of a trial, all that changes while it trains: creating, saving and restoring it, and recovery from failures."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import Pair
from search.inference import (
    Precision,
    Score,
    is_lack_of_memory,
    random_state,
    release_memory,
    set_random_state,
)
from search.trial.checkpoint import (
    BEST_WEIGHTS,
    config_fingerprint,
    drop_state,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from search.trial.config import TrialConfig
from search.trial.ema import WeightAverage
from search.trial.optimizers import masked_step, set_learning_rate
from search.trial.recovery import Diverged, Rescue
from search.trial.sparsity import Mask


class State:
    """Model, average, optimizer, precision, objective and mask of one trial, and how far it has come."""

    def __init__(
        self, config: TrialConfig, device: torch.device, folder: Path, report_rescue: Callable[[str], None]
    ) -> None:
        self.config, self.device, self.folder, self.report_rescue = config, device, folder, report_rescue
        self.started = self.saved_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        self.rescue = Rescue(**saved["rescue"]) if saved else Rescue(parts=config.crops.parts)
        self._build(resumed=saved is not None)
        if saved:
            self._restore(saved)
            self.started -= saved["seconds"]
        else:  # weights without a state are those of another trial
            (folder / BEST_WEIGHTS).unlink(missing_ok=True)

    def _build(self, *, resumed: bool) -> None:
        """Create everything for step 0; a resumed trial gets its weights from its own state."""
        config = self.config
        torch.manual_seed(config.seed)
        self.model = config.model.build()
        if config.initial is not None and not resumed:
            config.initial.load_into(self.model)
        self.model.to(self.device)
        # The compiled form shares the weights; saving, averaging and masking use the plain model.
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.average = WeightAverage(self.model, config.ema_decay)
        self.optimizer = config.optimizer.build(self.model)
        full = self.rescue.full_precision
        self.precision = Precision("fp32" if full else config.precision, self.device, tf32=not full)
        self.objective = config.loss.objective_for(config.model.channels, self.precision)
        self.mask = Mask({})
        self.step = 0
        self.rungs: list[Score] = []

    def _saved(self) -> dict[str, Any] | None:
        """The state on disk, if it is of this run, or of one that differs only in the length of the steps to come."""
        saved = load_state(self.folder)
        return saved if saved and saved["past"] == self._past(saved["step"]) else None

    def _past(self, step: int) -> str:
        return config_fingerprint(self.config.past(step))

    @property
    def seconds(self) -> float:
        """Time spent on this trial, earlier runs of it included."""
        return time.monotonic() - self.started

    @property
    def unsaved_seconds(self) -> float:
        """Time since the last state on disk: the work that a crash would lose."""
        return time.monotonic() - self.saved_at

    def offer(self, score: Score) -> None:
        """Keep the averaged weights if this is the best rung so far."""
        if all(score.psnr_db > earlier.psnr_db for earlier in self.rungs):
            save_weights(self.folder / BEST_WEIGHTS, self.average.model)
        self.rungs.append(score)

    def backward(self, batch: Pair) -> tuple[Tensor, Tensor]:
        """Gradients of the loss over `batch`, in micro-batches that fit into memory.

        The loss of the batch and the largest restored value, both still on the device. Raises what is
        not a lack of memory, and a lack of memory that a single crop runs into.
        """
        while True:
            try:
                return self._backward(batch)
            except Exception as error:
                if not is_lack_of_memory(error) or self.rescue.parts >= len(batch.clean):
                    raise
            # Outside the handler, where the error no longer holds on to the tensors of the failed attempt.
            normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in self.model.modules())
            self.rescue.halve_micro_batch(self.step, len(batch.clean), normalised)
            self.report_rescue(self.rescue.notes[-1])
            release_memory(self.device)

    def _backward(self, batch: Pair) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.zero_grad(set_to_none=True)
        self.model.train()
        losses, largest = [], []
        for part in batch.parts(self.rescue.parts):
            share = len(part.clean) / len(batch.clean)
            with self.precision.forward():
                restored = self.forward(part.degraded)
            restored = restored.float()
            with self.precision.float32():
                self.objective.learn(restored.detach(), part, share)
                loss = share * self.objective(restored, part)
            self.precision.backward(loss)
            losses.append(loss.detach())
            largest.append(restored.detach().abs().amax())
        return torch.stack(losses).sum(), torch.stack(largest).amax()

    def step_optimizers(self, lr: float) -> None:
        """One step of the model, of its average, and of the objective's own optimizers."""
        lr_scale = self.rescue.lr_scale
        set_learning_rate(self.optimizer, lr_scale * lr)
        masked_step(self.model, self.optimizer, self.precision, self.mask, self.config.clip_norm)
        self.objective.step(self.config.planned_step(self.step), self.config.planned_steps, lr_scale)
        self.average.update(self.model)
        self.mask.zero_copy(self.average.model)
        self.step += 1

    def go_back(self, problem: str) -> None:
        """Return to the last saved state with changed settings; raises `Diverged` if that was tried before."""
        if self.rescue.full_precision:
            raise Diverged(problem)
        saved = self._saved()
        self.rescue.go_back(problem, saved["step"] if saved else 0)
        self._build(resumed=saved is not None)
        if saved:
            self._restore(saved)
        self.save()
        self.report_rescue(self.rescue.notes[-1])

    def save(self) -> None:
        """Write the state whole, or leave the last one."""
        save_state(
            self.folder,
            {
                "past": self._past(self.step),
                "step": self.step,
                "model": self.model.state_dict(),
                "average": self.average.model.state_dict(),
                "updates": self.average.updates,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "objective": self.objective.state_dict(),
                "mask": self.mask.state(),
                "rungs": [asdict(score) for score in self.rungs],
                "rescue": asdict(self.rescue),
                "random": torch.get_rng_state(),
                "random_cuda": random_state(self.device),
                "seconds": self.seconds,
            },
        )
        self.saved_at = time.monotonic()

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.step = saved["step"]
        self.model.load_state_dict(saved["model"])
        self.average.model.load_state_dict(saved["average"])
        self.average.updates = saved["updates"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.precision.scaler.load_state_dict(saved["scaler"])
        self.objective.load_state_dict(saved["objective"])
        prunable: Callable[[], list[tuple[str, nn.Parameter]]] = self.model.prunable
        self.mask = Mask.from_state(prunable(), saved["mask"])
        self.rungs = [Score(**score) for score in saved["rungs"]]
        torch.set_rng_state(saved["random"])
        set_random_state(self.device, saved["random_cuda"])

    def take_best_weights(self) -> Path:
        """Put the averaged weights of the best rung into `average`, or keep them where there was no rung."""
        weights = self.folder / BEST_WEIGHTS
        if not self.rungs:  # no steps: the model is scored as it is
            save_weights(weights, self.average.model)
        load_weights(weights, self.average.model)
        drop_state(self.folder)
        return weights
