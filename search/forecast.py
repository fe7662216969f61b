"""What a budget buys: a search played many times by its own rules, with random scores and measured costs."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from search.climb import FINALE_SAFETY, MOST_OVER, SHORTEST_COOLDOWN
from search.ladder import TOP, Climber, LadderConfig, hopeless, leader, promotable, ranked
from search.study import StudySpec

PLAYS = 300
SECONDS = 3.0  # for all of them; no fewer than FEWEST
FEWEST = 20
LUCK = 0.5  # of a rung, where the quality of a recipe is 1


@dataclass(frozen=True)
class Course:
    """What the training of one recipe costs, in seconds."""

    steps: int
    per_step: float
    per_score: float
    """The images of a rung, restored and compared."""
    at_end: float
    """The images of the final score."""
    per_climb: float
    """Building, and looking at a few images."""
    at_birth: float
    shares: tuple[float, ...]
    """Of its steps, where it is scored; the last is 1."""
    stretchable: bool = True

    def steps_at(self, share: float) -> int:
        """Steps done at that share: at least one."""
        return min(max(1, round(self.steps * share)), self.steps) if share else 0

    def climb(self, low: float, high: float, steps: int | None = None) -> float:
        """From one share of the training to another; with another number of steps between, if given."""
        if steps is None:
            steps = self.steps_at(high) - self.steps_at(low)
        scores = len({self.steps_at(s) for s in self.shares if low < s <= high}) if self.steps else 0
        birth = 0.0 if low else self.at_birth
        end = self.at_end if high == 1 else 0.0
        return steps * self.per_step + scores * self.per_score + self.per_climb + birth + end


@dataclass(frozen=True)
class Fate:
    """How one search went."""

    begun: int
    reached: Mapping[int, int]
    """How many reached each rung, by its percent; the last are those trained to the end."""
    seconds: float
    finale_steps: int


def play(
    spec: StudySpec, known: Sequence[Course], drawn: Sequence[Course], opening: float, seed: int
) -> Fate:
    """One search by the rules of `run`: the way up, the share kept for repeats, the last stretch."""
    game = _Game(spec, known, drawn, opening, random.Random(seed))
    while game.one_climb():
        for climber in hopeless(game.climbers, spec.ladder, spec.keep):
            game.climbers[climber.number] = replace(climber, waits=False)
    steps = game.finale()
    reached = {p: sum(p in climber.scores for climber in game.climbers) for p in spec.ladder.percents()}
    return Fate(len(game.climbers), reached, game.clock, steps)


def plays(
    spec: StudySpec,
    known: Sequence[Course],
    drawn: Sequence[Course],
    opening: float,
    count: int = PLAYS,
    seconds: float = SECONDS,
) -> list[Fate]:
    """Many of them; fewer where one takes long."""
    started, found = time.monotonic(), list[Fate]()
    while len(found) < count and (len(found) < FEWEST or time.monotonic() - started < seconds):
        found.append(play(spec, known, drawn, opening, seed=len(found)))
    return found


class _Game:
    """The state of a search that is played."""

    def __init__(
        self,
        spec: StudySpec,
        known: Sequence[Course],
        drawn: Sequence[Course],
        opening: float,
        chance: random.Random,
    ) -> None:
        self.spec, self.known, self.drawn, self.chance = spec, known, drawn, chance
        self.ladder: LadderConfig = spec.ladder
        self.clock = opening
        self.climbers: list[Climber] = []
        self.courses: list[Course] = []
        self.quality: list[float] = []
        self.spent: list[float] = []
        self.rates: list[float] = []

    def one_climb(self) -> bool:
        """As `run` decides: the best who wait go first, then a new one; False when neither fits."""
        for climber in promotable(self.climbers, self.ladder):
            goal = self.ladder.above(climber.rung)
            share = self.ladder.share(climber.rung)
            if self._fits(self.spent[climber.number] * (self.ladder.share(goal) / share - 1)):
                self._climb(climber.number, goal)
                return True
        lowest = self.ladder.percents()[0]
        rate = median(self.rates) if self.rates else 0.0
        if len(self.climbers) >= self.spec.trials or not self._fits(rate * self.ladder.share(lowest)):
            return False
        number = len(self.climbers)
        self.climbers.append(Climber(number, {}, waits=False))
        self.courses.append(
            self.known[number] if number < len(self.known) else self.chance.choice(self.drawn)
        )
        self.quality.append(self.chance.gauss(0, 1))
        self.spent.append(0.0)
        self._climb(number, lowest)
        return True

    def _fits(self, expected: float) -> bool:
        return self.clock + expected <= self.spec.timeout * self.spec.search_share

    def _climb(self, number: int, goal: int) -> None:
        climber, course = self.climbers[number], self.courses[number]
        low, high = self.ladder.share(climber.rung), self.ladder.share(goal)
        took, limit = course.climb(low, high), self.spec.trial_timeout
        if limit is not None and self.spent[number] + took > limit:
            self._pass(number, max(limit - self.spent[number], 0.0))
            self.climbers[number] = replace(climber, waits=False)
            return
        self._pass(number, took)
        if course.steps:
            self.rates.append(took / (high - low))
        score = self.quality[number] + self.chance.gauss(0, LUCK)
        scores = {**climber.scores, goal: score}
        self.climbers[number] = Climber(number, scores, waits=goal < TOP)

    def _pass(self, number: int, seconds: float) -> None:
        self.spent[number] += seconds
        self.clock += seconds

    def finale(self) -> int:
        """The last stretch of the best who can still make it; how many steps its whole training has, or 0."""
        timeout, ladder = self.spec.timeout, self.ladder
        waiting = [climber for climber in self.climbers if climber.waits]
        if self.spec.confirm_seeds and waiting:
            self.clock += timeout * (1 - self.spec.finale - self.spec.search_share)
        left = timeout - self.clock
        hurried = len(self.climbers) < self.spec.trials or bool(promotable(self.climbers, ladder))
        in_front = leader((c for c in self.climbers if c.waits or TOP in c.scores), ladder)
        another = hurried and left > timeout * self.spec.finale / 2
        if not waiting or in_front is None or not (in_front.waits or another):
            return 0
        best_first = [c for rung in ladder.percents()[::-1] for c in ranked(waiting, rung) if c.rung == rung]
        over = {c.number: self._fewest_seconds(c) - MOST_OVER * left for c in best_first}
        in_time = [c for c in best_first if not hurried or over[c.number] <= 0]
        best = in_time[0] if in_time else min(best_first, key=lambda c: over[c.number])
        course, low = self.courses[best.number], ladder.share(best.rung)
        done, steps = course.steps_at(low), course.steps
        if hurried and course.stretchable:
            # The length that fits: what is left after scoring on the way.
            affordable = (left * FINALE_SAFETY - course.climb(low, 1, 0)) / course.per_step
            steps = max(done + math.floor(max(affordable, 1.0)), self._fewest_steps(best))
        self._pass(best.number, course.climb(low, 1, max(steps - done, 0)))
        self.climbers[best.number] = replace(best, scores={**best.scores, TOP: 0.0}, waits=False)
        return steps

    def _fewest_steps(self, climber: Climber) -> int:
        """The shortest whole training of one who waits."""
        course = self.courses[climber.number]
        done = course.steps_at(self.ladder.share(climber.rung))
        return math.ceil(done / (1 - SHORTEST_COOLDOWN)) if course.stretchable else course.steps

    def _fewest_seconds(self, climber: Climber) -> float:
        course = self.courses[climber.number]
        done = course.steps_at(self.ladder.share(climber.rung))
        return (self._fewest_steps(climber) - done) * course.per_step
