"""Simulation of searches: the real scheduler, a simulated clock, measured costs and random scores."""

import heapq
import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from search.plan.cost_model import TrainingCost
from search.plan.score_model import ScoreModel
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
SECONDS = 3.0  # for all simulations, which are no fewer than FEWEST
FEWEST = 20


@dataclass(frozen=True)
class SimulatedSearch:
    """Result of one simulated search."""

    begun: int
    reached: Mapping[int, int]
    """Number of trials that reached each rung, by its percent; 100 is the end of the training."""
    seconds: float
    winner_steps: int
    """Steps of the best trial trained to the end."""


def simulate(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    setup_seconds: float,
    seed: int,
    workers: int = 1,
) -> SimulatedSearch:
    """Simulate one search: known recipes first, then drawn ones; workers start after `setup_seconds`."""
    simulation = Simulation(spec, ScoreModel(spec, known, drawn, seed), len(known), workers)
    simulation.run(setup_seconds)
    return simulation.result()


def simulate_many(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    setup_seconds: float,
    count: int = SIMULATIONS,
    seconds: float = SECONDS,
    workers: int = 1,
) -> list[SimulatedSearch]:
    """Simulate up to `count` searches; fewer if they take longer than `seconds`."""
    started, found = time.monotonic(), list[SimulatedSearch]()
    while len(found) < count and (len(found) < FEWEST or time.monotonic() - started < seconds):
        found.append(simulate(spec, known, drawn, setup_seconds, len(found), workers))
    return found


@dataclass
class _Training:
    """Training of a simulated trial."""

    cost: TrainingCost
    quality: float
    length: int
    """Steps of the whole training."""
    scored_at: Sequence[int]
    """Steps at which it is scored if its length is not changed."""
    progress: float = 0.0
    """Share of the training that is done."""


@dataclass
class _Worker:
    index: int
    phase: Phase = field(default_factory=Searching)
    seconds_per_training: list[float] = field(default_factory=list)
    busy_until: float | None = None
    """Time at which its current work ends; None while it waits, and after its end."""


Seconds = Iterator[float]
"""Work of a worker as a sequence of durations."""


class Simulation:
    """The state of a simulated search."""

    def __init__(self, spec: StudySpec, score_model: ScoreModel, known: int, workers: int) -> None:
        """`known` is the number of recipes that are queued at the start."""
        self.rules, self.trial_timeout = spec.rules(), spec.trial_timeout
        self.ladder, self.score_model = spec.ladder, score_model
        self.elapsed = 0.0
        self.trials = [TrialView(number, State.QUEUED, is_known=True) for number in range(known)]
        self.trainings: dict[int, _Training] = {}
        self.repeats: list[RepeatView] = []
        self.workers = [_Worker(index) for index in range(workers)]

    def run(self, setup_seconds: float) -> None:
        """Run until all workers have nothing left to do."""
        work = [self._work(worker) for worker in self.workers]
        agenda = [(setup_seconds, worker.index) for worker in self.workers]
        while agenda:
            self.elapsed, index = heapq.heappop(agenda)
            if (seconds := next(work[index], None)) is not None:
                heapq.heappush(agenda, (self.elapsed + seconds, index))

    def result(self) -> SimulatedSearch:
        """The result so far."""
        finished = ranked(self.trials, TOP)
        return SimulatedSearch(
            begun=len(self.trainings),
            reached={p: sum(p in trial.scores for trial in self.trials) for p in self.ladder.percents()},
            seconds=self.elapsed,
            winner_steps=self.trainings[finished[0].number].length if finished else 0,
        )

    def _work(self, worker: _Worker) -> Seconds:
        """The loop of a worker, as in `search/worker/loop.py`."""
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
                case Finish(number, steps, pause_at, next_phase):
                    yield from self._finish(worker, number, steps, pause_at)
                    worker.phase = next_phase
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
        best_first = [self.trainings[trial.number].cost for trial in ranked(self.trials, TOP)]
        cost = self.score_model.draw_cost(number, best_first)
        scored_at = sorted({cost.steps_at(share) for share in cost.shares})
        self.trainings[number] = _Training(cost, self.score_model.quality(cost), cost.steps, scored_at)
        if queued is None:
            self.trials.append(TrialView(number, State.QUEUED))
        self._change(
            number,
            unreliable_rungs=self.ladder.unreliable_rungs(cost.steps),
            steps=cost.steps,
            seconds_per_step=cost.per_step,
        )
        return number

    def _train(self, worker: _Worker, number: int, rung: int) -> Seconds:
        """Train a trial up to `rung`, or until the time limit of a trial."""
        trial, cost = self.trials[number], self.trainings[number].cost
        low, high = self.ladder.share(trial.rung), self.ladder.share(rung)
        steps = cost.steps_at(high) - cost.steps_at(low)
        took, limit = cost.seconds_between(low, high), self.trial_timeout
        if limit is not None and trial.seconds + took > limit:
            took = max(limit - trial.seconds, 0.0)
            yield from self._spend(worker, number, rung, took)
            self._change(number, state=State.PRUNED, seconds=trial.seconds + took)
            return
        yield from self._spend(worker, number, rung, took)
        if steps:
            worker.seconds_per_training.append(took * cost.steps / steps)
        # In a training of few steps, several rungs may be at the same step and have the same score.
        reached = {rung} | {
            percent
            for percent, share in zip(self.ladder.percents(), self.ladder.shares(), strict=True)
            if trial.rung < percent < TOP and cost.steps_at(share) <= cost.steps_at(high)
        }
        scores = dict.fromkeys(reached, self._score(number))
        self._advance(number, self.ladder.share(max(reached)), steps, took, scores)

    def _finish(self, worker: _Worker, number: int, steps: int | None, pause_at: int | None) -> Seconds:
        """Train a part of the last stretch, possibly with a new length."""
        training, done = self.trainings[number], self.trials[number].steps_done
        if steps is not None:
            training.length = steps
        until = training.length if pause_at is None else pause_at
        low, high = training.progress, 1.0
        if until < training.length:
            high = low + (1 - low) * (until - done) / (training.length - done)
        took = training.cost.seconds_between(low, high, until - done)
        yield from self._spend(worker, number, TOP, took)
        # It is also scored at the rungs that it passes.
        rungs = zip(self.ladder.percents(), self.ladder.shares(), strict=True)
        scores = {percent: self._score(number) for percent, share in rungs if low < share <= high}
        self._advance(number, high, until - done, took, scores)

    def _repeat(self, worker: _Worker, number: int, seed: int, steps: int) -> Seconds:
        training = self.trainings[number]
        took = steps * training.cost.per_step + training.cost.per_repeat
        worker.busy_until = self.elapsed + took
        yield took
        worker.busy_until = None
        # Repeats reveal the quality of a recipe without noise.
        self.repeats.append(RepeatView(number, seed, steps, training.quality))

    def _spend(self, worker: _Worker, number: int, goal: int, seconds: float) -> Seconds:
        self._change(number, state=State.RUNNING, goal=goal)
        worker.busy_until = self.elapsed + seconds
        yield seconds
        worker.busy_until = None

    def _advance(
        self, number: int, progress: float, steps: int, seconds: float, scores: Mapping[int, float]
    ) -> None:
        """Record that a trial has made `steps` in `seconds`, and is at the share `progress` of its training."""
        training, trial = self.trainings[number], self.trials[number]
        training.progress, cost = progress, training.cost
        waits = State.INTERRUPTED if trial.goal == TOP else State.PAUSED
        behind = bisect_right(training.scored_at, cost.steps_at(progress))
        last = cost.at_end / cost.per_score if cost.per_score else 0.0
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
        return self.score_model.score(self.trainings[number].quality)

    def _change(self, number: int, **changes: object) -> None:
        self.trials[number] = replace(self.trials[number], **changes)  # type: ignore[arg-type]

    def _seconds_to_wait(self, seconds: float, until: float) -> float:
        """Time until the first poll after which the action may change."""
        ends = [worker.busy_until for worker in self.workers if worker.busy_until is not None]
        looks = math.ceil((min([until, *ends]) - self.elapsed) / seconds)
        return max(looks, 1) * seconds
