"""A sampler for small grids: tries the neighbours of the best trials, nearest to the top first.

On a grid of a few hundred recipes with one hill per branch, climbing needs fewer trials than a model of the
whole space, and no recipe is tried twice (tests/benchmarks/classical.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from search.samplers.base import PlannedSampler

Params = Mapping[str, Any]


class NeighbourSampler(PlannedSampler):
    """Best-first search on a grid.

    Takes the best trial that has a neighbour nobody tried: one setting moved by one step, or to the
    choice before or after. A setting that others depend on (`model.filter`, where there is a
    `model.filter.gaussian.sigma`) stays: its value is the branch. Every third trial is below the best one of
    another branch, in turn, so that a branch with a poor start gets its chance. When nothing is left, and for
    settings of a branch that is new, it draws at random.
    """

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Params:
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.params]
        done.sort(key=lambda trial: -(trial.value or 0.0))
        tried = {_key(trial.params) for trial in trials}
        forks = _forks(done)
        return next(
            (
                params
                for trial in _order(done, forks, number)
                for params in _neighbours(trial, forks)
                if _key(params) not in tried
            ),
            {},
        )


def _forks(trials: list[FrozenTrial]) -> set[str]:
    """The settings whose choices have settings of their own, named by the path to them."""
    names = {name for trial in trials for name in trial.params}
    return {name for name in names if any(other.startswith(f"{name}.") for other in names)}


def _order(best_first: list[FrozenTrial], forks: set[str], number: int) -> list[FrozenTrial]:
    """The trials in the order in which their neighbours are wanted."""
    branches = list(dict.fromkeys(_branch(trial, forks) for trial in best_first))
    if number % 3 or len(branches) < 2:
        return best_first
    others = branches[1:]
    turn = others[number // 3 % len(others)]
    return [trial for trial in best_first if _branch(trial, forks) == turn] + best_first


def _branch(trial: FrozenTrial, forks: set[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in trial.params.items() if name in forks)


def _neighbours(trial: FrozenTrial, forks: set[str]) -> Iterator[Params]:
    """All ways to move one setting of a trial by one step; its branch stays."""
    for name in trial.params:
        if name not in forks:
            for value in _beside(trial.distributions[name], trial.params[name]):
                yield {**trial.params, name: value}


def _beside(distribution: BaseDistribution, value: Any) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        place = distribution.choices.index(value)
        return [distribution.choices[n] for n in (place - 1, place + 1) if 0 <= n < len(distribution.choices)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = distribution.step or (distribution.high - distribution.low) / 8
    moved = (value + way * step for way in (-1, 1))
    slack = 1e-9 * step
    return [
        min(max(v, distribution.low), distribution.high)
        for v in moved
        if distribution.low - slack <= v <= distribution.high + slack
    ]


def _key(params: Params) -> tuple[tuple[str, Any], ...]:
    return tuple(
        sorted(
            (name, round(value, 9) if isinstance(value, float) else value) for name, value in params.items()
        )
    )
