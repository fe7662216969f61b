"""A search simulated many times: the policy of the real one, a simulated clock, measured costs and random scores."""

import heapq
import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from search.plan.cost_model import TrainingCost
from search.plan.score_model import Chance
from search.scheduler import (
    TOP,
    Action,
    Begin,
    Confirm,
    Done,
    Enter,
    Finish,
    Phase,
    Promote,
    Prune,
    RepeatView,
    Resume,
    Searching,
    Snapshot,
    State,
    TrialView,
    Wait,
    WorkerView,
    next_action,
    ranked,
)
from search.study import StudySpec

SIMULATIONS = 300
SECONDS = 3.0  # for all of them; no fewer than FEWEST
FEWEST = 20


@dataclass(frozen=True)
class SimulatedSearch:
    """How one search went."""

    begun: int
    reached: Mapping[int, int]
    """How many reached each rung, by its percent; the last are those trained to the end."""
    seconds: float
    winner_steps: int
    """Of the best of those trained to the end."""


def simulate(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    opening: float,
    seed: int,
    workers: int = 1,
) -> SimulatedSearch:
    """One search by the policy of `run`: recipes known beforehand, then drawn ones, after `opening` seconds."""
    simulation = Simulation(spec, Chance(spec, known, drawn, seed), len(known), workers)
    simulation.run(opening)
    return simulation.result()


def simulate_many(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    opening: float,
    count: int = SIMULATIONS,
    seconds: float = SECONDS,
    workers: int = 1,
) -> list[SimulatedSearch]:
    """Many of them; fewer where one takes long."""
    started, found = time.monotonic(), list[SimulatedSearch]()
    while len(found) < count and (len(found) < FEWEST or time.monotonic() - started < seconds):
        found.append(simulate(spec, known, drawn, opening, len(found), workers))
    return found


@dataclass
class _Training:
    """What is drawn for a trial, and where it stands."""

    course: TrainingCost
    quality: float
    length: int
    """Steps of the whole training."""
    scored_at: Sequence[int]
    """Steps at which it is scored, as long as its length is as planned."""
    progress: float = 0.0
    """The share of its course that is behind it."""


@dataclass
class _Worker:
    index: int
    phase: Phase = field(default_factory=Searching)
    seconds_per_training: list[float] = field(default_factory=list)
    busy_until: float | None = None
    """When what it does ends; None while it waits for others, and at its end."""


Seconds = Iterator[float]
"""What a worker does, as the seconds that each piece of it takes."""


class Simulation:
    """The state of a simulated search."""

    def __init__(self, spec: StudySpec, chance: Chance, known: int, workers: int) -> None:
        """`known`: how many recipes are queued at the start."""
        self.rules, self.trial_timeout = spec.rules(), spec.trial_timeout
        self.ladder, self.chance = spec.ladder, chance
        self.elapsed = 0.0
        self.trials = [TrialView(number, State.QUEUED, is_known=True) for number in range(known)]
        self.trainings: dict[int, _Training] = {}
        self.repeats: list[RepeatView] = []
        self.workers = [_Worker(index) for index in range(workers)]

    def run(self, opening: float) -> None:
        """Until the last worker has nothing left to do."""
        work = [self._work(worker) for worker in self.workers]
        agenda = [(opening, worker.index) for worker in self.workers]
        while agenda:
            self.elapsed, index = heapq.heappop(agenda)
            if (seconds := next(work[index], None)) is not None:
                heapq.heappush(agenda, (self.elapsed + seconds, index))

    def result(self) -> SimulatedSearch:
        """How it went."""
        finished = ranked(self.trials, TOP)
        return SimulatedSearch(
            begun=len(self.trainings),
            reached={p: sum(p in trial.scores for trial in self.trials) for p in self.ladder.percents()},
            seconds=self.elapsed,
            winner_steps=self.trainings[finished[0].number].length if finished else 0,
        )

    def _work(self, worker: _Worker) -> Seconds:
        """The loop of a worker (see `loop`)."""
        while not isinstance(action := self._next_action(worker), Done):
            match action:
                case Resume(number, rung) | Promote(number, rung):
                    yield from self._train(worker, number, rung)
                case Begin(rung, queued):
                    yield from self._train(worker, self._begin(queued), rung)
                case Prune(number):
                    self._change(number, state=State.PRUNED)
                case Confirm(number, seed, steps):
                    yield from self._repeat(worker, number, seed, steps)
                case Finish(number, steps, pause_at, then):
                    yield from self._finish(worker, number, steps, pause_at)
                    worker.phase = then
                case Wait(seconds, until):
                    yield self._seconds_to_wait(seconds, until)
                case Enter(phase):
                    worker.phase = phase

    def _next_action(self, worker: _Worker) -> Action:
        seen = worker.seconds_per_training
        pace = median(seen) if seen and isinstance(worker.phase, Searching) else 0.0
        view = WorkerView(worker.index, len(self.workers), pace, worker.phase)
        return next_action(Snapshot(self.rules, view, self.trials, self.repeats), self.elapsed)

    def _begin(self, queued: int | None) -> int:
        number = len(self.trials) if queued is None else queued
        best_first = [self.trainings[trial.number].course for trial in ranked(self.trials, TOP)]
        course = self.chance.course(number, best_first)
        scored_at = sorted({course.steps_at(share) for share in course.shares})
        self.trainings[number] = _Training(course, self.chance.quality(course), course.steps, scored_at)
        if queued is None:
            self.trials.append(TrialView(number, State.QUEUED))
        self._change(
            number,
            early=self.ladder.early(course.steps),
            steps=course.steps,
            seconds_per_step=course.per_step,
        )
        return number

    def _train(self, worker: _Worker, number: int, rung: int) -> Seconds:
        """From one rung to another; its time may be over before."""
        trial, course = self.trials[number], self.trainings[number].course
        low, high = self.ladder.share(trial.rung), self.ladder.share(rung)
        steps = course.steps_at(high) - course.steps_at(low)
        took, limit = course.climb(low, high), self.trial_timeout
        if limit is not None and trial.seconds + took > limit:
            took = max(limit - trial.seconds, 0.0)
            yield from self._spend(worker, number, rung, took)
            self._change(number, state=State.PRUNED, seconds=trial.seconds + took)
            return
        yield from self._spend(worker, number, rung, took)
        if steps:
            worker.seconds_per_training.append(took * course.steps / steps)
        # Of a training of few steps several rungs are at the same one, and have the same score.
        reached = {rung} | {
            percent
            for percent, share in zip(self.ladder.percents(), self.ladder.shares(), strict=True)
            if trial.rung < percent < TOP and course.steps_at(share) <= course.steps_at(high)
        }
        scores = dict.fromkeys(reached, self._score(number))
        self._advance(number, self.ladder.share(max(reached)), steps, took, scores)

    def _finish(self, worker: _Worker, number: int, steps: int | None, pause_at: int | None) -> Seconds:
        """A part of the last stretch, at another pace of progress if the length is changed."""
        training, done = self.trainings[number], self.trials[number].steps_done
        if steps is not None:
            training.length = steps
        until = training.length if pause_at is None else pause_at
        low, high = training.progress, 1.0
        if until < training.length:
            high = low + (1 - low) * (until - done) / (training.length - done)
        took = training.course.climb(low, high, until - done)
        yield from self._spend(worker, number, TOP, took)
        # It is scored at the rungs that it passes, too.
        rungs = zip(self.ladder.percents(), self.ladder.shares(), strict=True)
        scores = {percent: self._score(number) for percent, share in rungs if low < share <= high}
        self._advance(number, high, until - done, took, scores)

    def _repeat(self, worker: _Worker, number: int, seed: int, steps: int) -> Seconds:
        training = self.trainings[number]
        took = steps * training.course.per_step + training.course.per_repeat
        worker.busy_until = self.elapsed + took
        yield took
        worker.busy_until = None
        # Repeats tell how good a recipe is.
        self.repeats.append(RepeatView(number, seed, steps, training.quality))

    def _spend(self, worker: _Worker, number: int, goal: int, seconds: float) -> Seconds:
        self._change(number, state=State.RUNNING, goal=goal)
        worker.busy_until = self.elapsed + seconds
        yield seconds
        worker.busy_until = None

    def _advance(
        self, number: int, progress: float, steps: int, seconds: float, scores: Mapping[int, float]
    ) -> None:
        """A trial has made `steps` in `seconds`, up to that share of its course."""
        training, trial = self.trainings[number], self.trials[number]
        training.progress, course = progress, training.course
        waits = State.INTERRUPTED if trial.goal == TOP else State.PAUSED
        behind = bisect_right(training.scored_at, course.steps_at(progress))
        last = course.at_end / course.per_score if course.per_score else 0.0
        self._change(
            number,
            state=State.COMPLETE if progress == 1 else waits,
            scores={**trial.scores, **scores},
            steps_done=trial.steps_done + steps,
            seconds=trial.seconds + seconds,
            scored=behind,
            scores_to_come=len(training.scored_at) - behind + last,
        )

    def _score(self, number: int) -> float:
        return self.chance.score(self.trainings[number].quality)

    def _change(self, number: int, **changes: object) -> None:
        self.trials[number] = replace(self.trials[number], **changes)  # type: ignore[arg-type]

    def _seconds_to_wait(self, seconds: float, until: float) -> float:
        """Up to the look at which something will have changed."""
        ends = [worker.busy_until for worker in self.workers if worker.busy_until is not None]
        looks = math.ceil((min([until, *ends]) - self.elapsed) / seconds)
        return max(looks, 1) * seconds
