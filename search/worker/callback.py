"""Callback of a training: reports scores to the study, pauses at rungs, passes on requests to stop."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import optuna
from torch import Tensor

from search.database import Heartbeat, record_facts, reported_scores
from search.inference import Score
from search.terminal import Shows
from search.text import clock
from search.trial import TrialConfig


class StopSignals:
    """The first Ctrl-C or SIGTERM requests an orderly stop; the second one interrupts at once.

    The functions `also` are other sources of such a request.
    """

    def __init__(self, *also: Callable[[], bool]) -> None:
        self._also = also
        self._requested = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self._requested or any(is_requested() for is_requested in self._also)

    def request(self) -> None:
        """Ask for an orderly stop."""
        self._requested = True

    def __enter__(self) -> Self:
        # Signal handlers can only be set in the main thread.
        with suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self.request()


class TrialCallback:
    """Reports the progress of a training to Optuna and to the display."""

    def __init__(
        self,
        label: str,
        trial: optuna.Trial,
        config: TrialConfig,
        progress: Shows,
        stop: StopSignals,
        heartbeat: Heartbeat,
        limit_seconds: float | None = None,
        pause_at: int | None = None,
    ) -> None:
        self.label, self.trial, self.config, self.progress = label, trial, config, progress
        self.stop, self.heartbeat = stop, heartbeat
        self.limit_seconds, self.pause_at = limit_seconds, pause_at
        self.rungs: list[Score] = []
        self.notes: list[str] = []
        self.reported = reported_scores(trial)
        self.step = 0
        self.started = self.last_event = time.monotonic()
        self.timed_steps, self.training_seconds = (
            0,
            0.0,
        )  # since the trial was last continued, validation not counted

    def seconds(self) -> float:
        """Time of the trial. Of earlier, interrupted trainings it counts up to their last saved state."""
        return time.monotonic() - self.started

    def seconds_per_step(self) -> float:
        """Since the trial was last continued, validation not counted."""
        if self.timed_steps == 0:  # only the last score was missing
            return self.seconds() / max(self.step, 1)
        return self.training_seconds / self.timed_steps

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        self.step, self.rungs = step, list(rungs)
        self.heartbeat.step, self.heartbeat.steps = step, self.config.total_steps
        self.started -= seconds
        self.last_event = time.monotonic()
        self.progress.start(self.label, step, self.config.total_steps)

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        self.step = self.heartbeat.step = step
        now = time.monotonic()
        self.timed_steps += 1
        self.training_seconds += now - self.last_event
        self.last_event = now
        self.progress.stepped(step, steps, loss)
        if self.limit_seconds is not None and self.seconds() > self.limit_seconds and step < steps:
            raise optuna.TrialPruned(f"out of time at step {step} of {steps} ({clock(self.limit_seconds)})")

    def scored(self, score: Score, dense: bool) -> None:
        """Report to Optuna by the percentage of steps done, so that trials of different lengths can be compared.

        Scores of a sparse phase (not `settled`) are kept but not reported, because they are lower for a while. A trial
        that pauses there reports its best score so far.
        """
        self.last_event = time.monotonic()
        self.rungs = [*(rung for rung in self.rungs if rung.step < score.step), score]
        self.progress.scored(score.psnr_db)
        if dense:
            self._report(score, score.psnr_db)
        elif self.paused:
            self._report(score, max(self.reported.values(), default=score.psnr_db))

    def _report(self, score: Score, psnr_db: float) -> None:
        here = [share for share in self.config.pauses if self.config.steps_at(share) == score.step]
        for percent in sorted({self.config.rungs()[score.step], *(round(100 * share) for share in here)}):
            if percent not in self.reported:
                self.reported[percent] = psnr_db
                self.trial.report(psnr_db, percent)

    def rescued(self, note: str) -> None:
        self.last_event = time.monotonic()
        self.notes.append(note)
        record_facts(self.trial, rescues=self.notes)
        self.progress.say(f"{self.label}: {note}")

    def stop_requested(self) -> bool:
        return self.stop.requested or self.heartbeat.lost or self.paused

    @property
    def paused(self) -> bool:
        """True once the trial has reached the step at which it pauses."""
        return self.pause_at is not None and self.step >= self.pause_at
