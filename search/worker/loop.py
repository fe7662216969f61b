"""The main loop of a worker: asks the scheduler for the next action and carries it out."""

import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

from search.database import (
    FrozenTrial,
    LeaseMonitor,
    Queue,
    begin_trial,
    claim_trial,
    confirm_folder,
    facts_of,
    release_abandoned_trial,
)
from search.scheduler import (
    TOP,
    Action,
    Begin,
    Confirm,
    Done,
    Enter,
    Finish,
    Finishing,
    Phase,
    Promote,
    Prune,
    Resume,
    Searching,
    Wait,
    WorkerView,
    next_action,
)
from search.trial import Stopped, TrialConfig
from search.worker.confirm import (
    RepeatCallback,
    read_repeats,
    record_repeat,
    repeat_sentences,
    repeat_views,
    retrain_finalist,
)
from search.worker.run_trial import Worker


class WorkerLoop:
    """Carries out one action after another, until nothing is left to do or a stop is requested."""

    def __init__(
        self,
        worker: Worker,
        started: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`started` is the time of the clock `now` at which the search began."""
        self.worker, self.started, self.now, self.sleep = worker, started, now, sleep
        self.spec, self.study, self.progress = worker.spec, worker.study, worker.progress
        self.queue = Queue(worker.study, worker.spec.rules())
        self.lease_monitor = LeaseMonitor()
        self.phase: Phase = Searching()
        self.has_trained = False

    def run(self) -> None:
        """Run to the end. If another worker took the trial first, the scheduler is asked again."""
        while not isinstance(action := self._next_action(), Done):
            match action:
                case Resume(number, rung) | Promote(number, rung):
                    self._train(number, rung)
                case Begin(rung, None):
                    self._begin(rung)
                case Begin(rung, int(queued)):
                    self._train(queued, rung)
                case Prune(number):
                    self.worker.prune(self._trial(number))
                case Confirm(number, seed, steps):
                    self._repeat(number, seed, steps)
                case Finish(number, steps, pause_at, next_phase):
                    if self._train(number, TOP, steps, pause_at):
                        self.phase = next_phase
                case Wait(seconds):
                    self._release_abandoned_trials()
                    self.sleep(seconds)
                case Enter(phase):
                    self._release_abandoned_trials()
                    self._enter(phase)
        if not self.has_trained and self.worker.options.workers == 1:
            self.progress.say(f"all {self.spec.trials} trials are done; a larger --trials searches on")

    def _next_action(self) -> Action:
        if self.worker.stop.requested:
            return Done()
        options, seen = self.worker.options, self.worker.seconds_per_training
        view = WorkerView(
            options.index, options.workers, statistics.median(seen) if seen else 0.0, self.phase
        )
        searching = isinstance(self.phase, Searching)
        repeats = [] if searching else repeat_views(read_repeats(self.study))
        return next_action(self.queue.snapshot(view, repeats), self.now() - self.started)

    def _begin(self, rung: int) -> None:
        """Train a new trial, unless the study has as many as it may have."""
        trial = begin_trial(self.study, self.spec.trials, self.worker.sampler, goal=rung)
        if trial is not None:
            self.has_trained = True
            self.worker.work_on(trial)

    def _train(self, number: int, rung: int, steps: int | None = None, pause_at: int | None = None) -> bool:
        """Train a waiting trial up to `rung` or step `pause_at`; False if another worker has taken it.

        `steps`, if given, is the new length of its whole training.
        """
        waiting, facts = self._trial(number), dict[str, Any](goal=rung)
        if steps is not None:
            known = facts_of(waiting)
            config = TrialConfig.model_validate(known.config)
            facts["length"] = config.with_length(steps, since=known.steps_done).length
        trial = claim_trial(self.study, waiting, self.worker.sampler, **facts)
        if trial is None:
            return False
        self.has_trained = True
        self.worker.work_on(trial, pause_at)
        return True

    def _repeat(self, number: int, seed: int, steps: int) -> None:
        """Train a finalist again and record the result; nothing is recorded if it is stopped."""
        worker, options, trial = self.worker, self.worker.options, self._trial(number)
        report = RepeatCallback(f"trial {number} again, seed {seed}", steps, self.progress, worker.stop)
        folder = confirm_folder(worker.folder, number, seed)
        try:
            found = retrain_finalist(trial, seed, steps, worker.split, options.device, folder, report)
        except Stopped:
            return
        shutil.rmtree(folder, ignore_errors=True)
        record_repeat(self.study, found)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        # All repeats are done: one worker prints the result.
        if isinstance(phase, Finishing) and self.spec.confirm_seeds and self.worker.options.index == 0:
            for line in repeat_sentences(self.study):
                self.progress.say(line)

    def _release_abandoned_trials(self) -> None:
        """Put abandoned trials back in the queue: their workers have crashed."""
        for trial in self.lease_monitor.abandoned_trials(self.study):
            release_abandoned_trial(self.study, trial)

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]
