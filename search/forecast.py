"""What a budget buys: a search played many times by its own rules, with random scores and measured costs."""

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from search.chance import Chance
from search.climb import FINALE_SAFETY, LOOKS, MOMENT_S, MOST_OVER, fewest_steps
from search.courses import TrainingCost
from search.ladder import TOP, Climber, LadderConfig, hopeless, leader, promotable, ranked
from search.study import StudySpec

PLAYS = 300
SECONDS = 3.0  # for all of them; no fewer than FEWEST
FEWEST = 20


@dataclass(frozen=True)
class Fate:
    """How one search went."""

    begun: int
    reached: Mapping[int, int]
    """How many reached each rung, by its percent; the last are those trained to the end."""
    seconds: float
    winner_steps: int
    """Of the best of those trained to the end."""


def play(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    opening: float,
    seed: int,
    workers: int = 1,
) -> Fate:
    """One search by the rules of `run`: the way up, the repeats, the last stretch, by each of its workers."""
    game = _Game(spec, Chance(spec, known, drawn, seed), len(known), workers)
    game.go(opening)
    reached = {p: sum(p in climber.scores for climber in game.climbers) for p in spec.ladder.percents()}
    finished = ranked(game.climbers, TOP)
    steps = game.lengths[finished[0].number] if finished else 0
    return Fate(len(game.climbers), reached, game.clock, steps)


def plays(
    spec: StudySpec,
    known: Sequence[TrainingCost],
    drawn: Sequence[TrainingCost],
    opening: float,
    count: int = PLAYS,
    seconds: float = SECONDS,
    workers: int = 1,
) -> list[Fate]:
    """Many of them; fewer where one takes long."""
    started, found = time.monotonic(), list[Fate]()
    while len(found) < count and (len(found) < FEWEST or time.monotonic() - started < seconds):
        found.append(play(spec, known, drawn, opening, len(found), workers))
    return found


Waits = Iterator[float]
"""What a worker does, as the seconds until it next looks around."""


class _Game:
    """The state of a search that is played. Its methods have the names and the rules of those of `climb.Sitting`."""

    def __init__(self, spec: StudySpec, chance: Chance, known: int, workers: int) -> None:
        self.spec, self.chance, self.known, self.workers = spec, chance, known, workers
        self.ladder: LadderConfig = spec.ladder
        self.clock = 0.0
        self.climbers: list[Climber] = []
        self.courses: list[TrainingCost] = []
        self.quality: list[float] = []
        self.spent: list[float] = []
        self.lengths: list[int] = []
        """Steps of each whole training."""
        self.climbing: dict[int, float] = {}
        """Trials on their way to a rung below the end, and when they are there."""
        self.finishing: set[int] = set()
        self.repeats: dict[tuple[int, int], int] = {}
        """The steps of each repeat that is done, by trial and seed."""

    def go(self, opening: float) -> None:
        """Until the last worker has nothing left to do."""
        sittings = [self._sitting(index) for index in range(self.workers)]
        agenda = [(opening, index) for index in range(self.workers)]
        while agenda:
            self.clock, index = heapq.heappop(agenda)
            if (seconds := next(sittings[index], None)) is not None:
                heapq.heappush(agenda, (self.clock + seconds, index))

    def _sitting(self, index: int) -> Waits:
        """The share that one worker has."""
        rates: list[float] = []
        while True:
            if (turn := self._turn(rates)) is not None:
                yield from self._climb(*turn, rates)
            elif self.climbing and self.clock <= self.spec.timeout * self.spec.search_share:
                yield (
                    max(min(self.climbing.values()) - self.clock, 0.0) + MOMENT_S / 2
                )  # until others are there
            else:
                break
            for climber in hopeless(self.climbers, self.ladder, self.spec.keep):
                self.climbers[climber.number] = replace(climber, waits=False)
        if self.spec.confirm_seeds:
            yield from self._confirm(index)
        yield from self._finale()

    def _turn(self, rates: Sequence[float]) -> tuple[int, int] | None:
        """Whose turn it is, and to which rung: the best who wait go first, then a new one; None if neither fits."""
        for climber in promotable(self.climbers, self.ladder):
            goal = self.ladder.above(climber.rung)
            share = self.ladder.share(climber.rung)
            if self._fits(self.spent[climber.number] * (self.ladder.share(goal) / share - 1)):
                return climber.number, goal
        lowest = self.ladder.percents()[0]
        rate = median(rates) if rates else 0.0
        # However short the time, one trial is made.
        if self.climbers and not self._fits(rate * self.ladder.share(lowest)):
            return None
        return (self._new(), lowest) if len(self.climbers) < self.spec.trials else None

    def _new(self) -> int:
        number = len(self.climbers)
        course = self.chance.course(number, [self.courses[c.number] for c in ranked(self.climbers, TOP)])
        self.climbers.append(Climber(number, {}, waits=False, early=self.ladder.early(course.steps)))
        self.courses.append(course)
        self.quality.append(self.chance.quality(course))
        self.spent.append(0.0)
        self.lengths.append(course.steps)
        return number

    def _fits(self, expected: float) -> bool:
        return self.clock + expected <= self.spec.timeout * self.spec.search_share

    def _climb(self, number: int, goal: int, rates: list[float]) -> Waits:
        climber, course = self.climbers[number], self.courses[number]
        low, high = self.ladder.share(climber.rung), self.ladder.share(goal)
        took, limit = course.climb(low, high), self.spec.trial_timeout
        # The last stretch has all the time there is.
        ends = limit is not None and not (goal == TOP and self.ladder.rungs)
        if ends and limit is not None and self.spent[number] + took > limit:
            yield from self._work(number, goal, max(limit - self.spent[number], 0.0))
            return
        yield from self._work(number, goal, took)
        if done := course.steps_at(high) - course.steps_at(low):
            rates.append(took * course.steps / done)
        # Of a training of few steps several rungs are at the same one.
        reached = [
            p
            for p in self.ladder.percents()
            if course.steps_at(self.ladder.share(p)) <= course.steps_at(high)
        ]
        self._score(number, goal, *(p for p in reached if climber.rung < p < TOP))

    def _work(self, number: int, goal: int, seconds: float) -> Waits:
        self.climbers[number] = replace(self.climbers[number], waits=False)
        if goal < TOP:
            self.climbing[number] = self.clock + seconds
        else:
            self.finishing.add(number)
        yield seconds
        self.climbing.pop(number, None)
        self.finishing.discard(number)
        self.spent[number] += seconds

    def _score(self, number: int, *rungs: int) -> None:
        score = self.chance.score(self.quality[number])
        scores = {**self.climbers[number].scores, **dict.fromkeys(rungs, score)}
        self.climbers[number] = replace(self.climbers[number], scores=scores, waits=TOP not in scores)

    def _hurried(self) -> bool:
        return len(self.climbers) < self.spec.trials or bool(promotable(self.climbers, self.ladder))

    def _confirm(self, index: int) -> Waits:
        """The leaders again from new seeds: a worker's share of them, then it waits for the others'."""
        seeds = range(1, self.spec.confirm_seeds + 1)
        runs = [(number, seed) for seed in seeds for number in self._finalists()]
        hurried, rounds = self._hurried(), math.ceil(len(runs) / self.workers)
        share = self.spec.timeout * (1 - self.spec.finale - self.spec.search_share)
        for number, seed in runs[index :: self.workers]:
            course = self.courses[number]
            earlier = [steps for (other, _), steps in self.repeats.items() if other == number]
            if earlier:
                steps = earlier[0]
            elif hurried:
                steps = max(1, int(share / rounds / course.per_step))
            else:
                steps = course.steps_at(self.ladder.shares()[-2])
            yield steps * course.per_step + course.per_repeat
            self.repeats[number, seed] = steps
        if hurried:
            patience = self.spec.timeout * (1 - self.spec.finale) - self.clock
        else:
            patience = 3 * rounds * max((self.spent[number] for number, _ in runs), default=0.0)
        deadline = self.clock + patience
        while not self.repeats.keys() >= set(runs) and self.clock < deadline:
            yield MOMENT_S

    def _finalists(self) -> list[int]:
        waiting = [climber for climber in self.climbers if climber.waits]
        best = leader(waiting, self.ladder)
        if best is None:
            return []
        chosen = ranked(waiting, best.rung)[: self.spec.finalists]
        first = leader(self.climbers[: self.known], self.ladder)
        if first is not None and first not in chosen and TOP not in first.scores:
            chosen.append(first)
        return [climber.number for climber in chosen]

    def _finale(self) -> Waits:
        """The best who can still make it, each trained to its end."""
        while True:
            in_front = leader((c for c in self.climbers if self._may_win(c)), self.ladder)
            if in_front is None or not (in_front.waits or self._time_for_another()):
                return
            hurried, waiting = self._hurried(), self._waiting_best_first()
            in_time = [number for number in waiting if not hurried or self._seconds_over(number) <= 0]
            number = in_time[0] if in_time else None
            if number is None and not any(self._may_win(c) and not c.waits for c in self.climbers):
                number = min(waiting, key=self._seconds_over, default=None)
            if number is None:
                return
            yield from self._finish(number, hurried)

    def _may_win(self, climber: Climber) -> bool:
        return climber.waits or TOP in climber.scores or climber.number in self.finishing

    def _time_for_another(self) -> bool:
        left = self.spec.timeout - self.clock
        return self._hurried() and left > self.spec.timeout * self.spec.finale / 2

    def _waiting_best_first(self) -> list[int]:
        """Those trained again first; their repeats tell how good they are."""
        waiting = [climber for climber in self.climbers if climber.waits]
        by_rung = [c.number for rung in self.ladder.percents()[::-1] for c in ranked(waiting, rung)]
        again = {number for number, _ in self.repeats if number in by_rung}
        confirmed = sorted(again, key=lambda number: (-self.quality[number], number))
        return list(dict.fromkeys(confirmed + by_rung))

    def _finish(self, number: int, hurried: bool) -> Waits:
        course, low = self.courses[number], self.ladder.share(self.climbers[number].rung)
        done, steps = course.steps_at(low), course.steps
        beside = course.climb(low, 1, 0)
        if hurried:
            beside += (len(LOOKS) - 1) * course.per_climb
            # The length that fits: what is left after scoring on the way.
            left = self.spec.timeout - self.clock
            affordable = (left * FINALE_SAFETY - beside) / course.per_step
            steps = max(done + math.floor(max(affordable, 1.0)), fewest_steps(done))
        self.lengths[number] = steps
        yield from self._work(number, TOP, beside + max(steps - done, 0) * course.per_step)
        # It is scored at the rungs that it passes, too.
        passed = self.climbers[number].rung
        for rung in self.ladder.percents():
            if rung > passed:
                self._score(number, rung)

    def _seconds_over(self, number: int) -> float:
        """How much later than the time (and a little more) the shortest way to the end would be over."""
        course, low = self.courses[number], self.ladder.share(self.climbers[number].rung)
        done = course.steps_at(low)
        needed = course.climb(low, 1, fewest_steps(done) - done)
        return needed - MOST_OVER * (self.spec.timeout - self.clock)
