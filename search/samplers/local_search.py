"""A local search for small grids: tries the neighbours of the best trials.

On a grid of a few hundred recipes with one maximum per branch, local search needs fewer trials than a surrogate of the
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

    Proposes an untried neighbour of the best trial that has one: one setting is moved by one step, or to the
    choice before or after. A setting on which others depend (`model.filter`, if there is a
    `model.filter.gaussian.sigma`) is not moved: its value is the branch. Every third trial is a neighbour of a trial
    of another branch, in turn, so that all branches are tried. Without untried neighbours, and for settings of a new
    branch, values are random.
    """

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Params:
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.params]
        done.sort(key=lambda trial: -(trial.value or 0.0))
        tried = {_key(trial.params) for trial in trials}
        branching = _branching_settings(done)
        return next(
            (
                params
                for trial in _order(done, branching, number)
                for params in _neighbours(trial, branching)
                if _key(params) not in tried
            ),
            {},
        )


def _branching_settings(trials: list[FrozenTrial]) -> set[str]:
    """Names of the settings whose choices have settings of their own."""
    names = {name for trial in trials for name in trial.params}
    return {name for name in names if any(other.startswith(f"{name}.") for other in names)}


def _order(best_first: list[FrozenTrial], branching: set[str], number: int) -> list[FrozenTrial]:
    """The trials in the order in which their neighbours are tried."""
    branches = list(dict.fromkeys(_branch(trial, branching) for trial in best_first))
    if number % 3 or len(branches) < 2:
        return best_first
    others = branches[1:]
    chosen = others[number // 3 % len(others)]
    return [trial for trial in best_first if _branch(trial, branching) == chosen] + best_first


def _branch(trial: FrozenTrial, branching: set[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in trial.params.items() if name in branching)


def _neighbours(trial: FrozenTrial, branching: set[str]) -> Iterator[Params]:
    """All recipes that differ from a trial by one step of one setting, within its branch."""
    for name in trial.params:
        if name not in branching:
            for value in _adjacent_values(trial.distributions[name], trial.params[name]):
                yield {**trial.params, name: value}


def _adjacent_values(distribution: BaseDistribution, value: Any) -> list[Any]:
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
