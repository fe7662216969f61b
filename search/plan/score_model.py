"""Random part of a simulated search: the recipe of a trial, its quality and its scores."""

import math
import random
from collections.abc import Hashable, Sequence
from statistics import fmean, pstdev

from search.plan.cost_model import TrainingCost
from search.study import StudySpec

SCORE_NOISE = 0.5  # standard deviation of a score at a rung; that of the quality of recipes is 1
# Correlation of scores with the number of steps that recipes make with the same compute: 0.4 to 0.7 at all rungs of the
# recorded curves (tests/benchmarks/early_lead.py). Many small steps take longer, so the best trials are slow ones.
STEPS_CORRELATION = 0.55


class ScoreModel:
    """Draws recipes, qualities and scores of one simulated search."""

    def __init__(
        self, spec: StudySpec, known: Sequence[TrainingCost], drawn: Sequence[TrainingCost], seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.by_branch = spec.sampler == "neighbours"
        self.known, self.drawn = known, drawn
        logs = [math.log(cost.steps) for cost in (*known, *drawn) if cost.steps]
        self._middle, self._spread = (fmean(logs), pstdev(logs)) if logs else (0.0, 0.0)
        self._branches: dict[Hashable, float] = {}

    def draw_cost(self, number: int, best_first: Sequence[TrainingCost]) -> TrainingCost:
        """Cost of the recipe of trial `number`; `best_first` are the costs of those trained to their end.

        Known recipes come first. The sampler "neighbours" stays in the branch of the best, and takes every third
        trial from another branch, in turn.
        """
        if number < len(self.known):
            return self.known[number]
        branches = list(dict.fromkeys(cost.branch for cost in best_first))
        if not self.by_branch or len(branches) < 2:
            return self.random.choice(self.drawn)
        others = branches[1:]
        branch = branches[0] if number % 3 else others[number // 3 % len(others)]
        return self.random.choice([one for one in (*self.drawn, *self.known) if one.branch == branch])

    def quality(self, cost: TrainingCost) -> float:
        """Random quality of a recipe, correlated with its number of steps; its standard deviation is about 1."""
        if self.by_branch:  # branches differ as much as recipes of other studies
            branch = self._branches.setdefault(cost.branch, self.random.gauss(0, 1))
            return branch + self.random.gauss(0, SCORE_NOISE)
        many = (math.log(cost.steps) - self._middle) / self._spread if cost.steps and self._spread else 0.0
        return STEPS_CORRELATION * many + math.sqrt(1 - STEPS_CORRELATION**2) * self.random.gauss(0, 1)

    def score(self, quality: float) -> float:
        """Random score of a recipe of this quality."""
        return quality + self.random.gauss(0, SCORE_NOISE)
