"""What chance decides in a simulated search: which recipe is drawn, how good it is, and what it scores."""

import math
import random
from collections.abc import Hashable, Sequence
from statistics import fmean, pstdev

from search.plan.cost_model import TrainingCost
from search.study import StudySpec

LUCK = 0.5  # of a score at a rung, where the quality of recipes varies by 1
# The correlation of scores with the number of steps that recipes make of the same compute; the recorded curves
# have 0.4 to 0.7 at all rungs (tests/benchmarks/early_lead.py). Many small steps take long: who leads is slow.
STEPS_COUNT = 0.55


class Chance:
    """The dice of one simulated search."""

    def __init__(
        self, spec: StudySpec, known: Sequence[TrainingCost], drawn: Sequence[TrainingCost], seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.by_branch = spec.sampler == "neighbours"
        self.known, self.drawn = known, drawn
        logs = [math.log(course.steps) for course in (*known, *drawn) if course.steps]
        self._middle, self._spread = (fmean(logs), pstdev(logs)) if logs else (0.0, 0.0)
        self._branches: dict[Hashable, float] = {}

    def course(self, number: int, best_first: Sequence[TrainingCost]) -> TrainingCost:
        """The recipe of trial `number`, after those that have been trained to their end.

        Known ones come first. A sampler that tries neighbours stays in the branch of the best, and takes
        every third trial from another one, in turn.
        """
        if number < len(self.known):
            return self.known[number]
        branches = list(dict.fromkeys(course.branch for course in best_first))
        if not self.by_branch or len(branches) < 2:
            return self.random.choice(self.drawn)
        others = branches[1:]
        branch = branches[0] if number % 3 else others[number // 3 % len(others)]
        return self.random.choice([one for one in (*self.drawn, *self.known) if one.branch == branch])

    def quality(self, course: TrainingCost) -> float:
        """By what is expected of its number of steps, else by chance; in the end all studies vary by about 1."""
        if self.by_branch:  # branches are as unlike as recipes elsewhere
            branch = self._branches.setdefault(course.branch, self.random.gauss(0, 1))
            return branch + self.random.gauss(0, LUCK)
        many = (
            (math.log(course.steps) - self._middle) / self._spread if course.steps and self._spread else 0.0
        )
        return STEPS_COUNT * many + math.sqrt(1 - STEPS_COUNT**2) * self.random.gauss(0, 1)

    def score(self, quality: float) -> float:
        """What a recipe of that quality scores this time."""
        return quality + self.random.gauss(0, LUCK)
