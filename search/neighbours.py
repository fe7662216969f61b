"""A sampler for small grids: tries the neighbours of the best trials, nearest to the top first.

On a grid of a few hundred recipes with one hill per branch, climbing needs fewer trials than a model of the
whole space, and no recipe is tried twice (tests/benchmarks/classical.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

Params = Mapping[str, Any]


class NeighbourSampler(optuna.samplers.BaseSampler):
    """Best-first search on a grid.

    Takes the best trial that has a neighbour nobody tried: one setting moved by one step, or to the
    choice before or after. A setting that others depend on (`model.filter`, where there is a
    `model.filter.gaussian.sigma`) stays: its value is the branch. Every third trial is below the best one of
    another branch, in turn, so that a branch with a poor start gets its chance. When nothing is left, and for
    settings of a branch that is new, it draws at random.
    """

    def __init__(self, seed: int) -> None:
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._plan: Params = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE and t.params]
        done.sort(key=lambda t: -(t.value or 0.0))
        tried = {_key(t.params) for t in study.get_trials(deepcopy=False)}
        forks = _forks(done)
        self._plan = next(
            (
                p
                for t in _order(done, forks, trial.number)
                for p in _neighbours(t, forks)
                if _key(p) not in tried
            ),
            {},
        )

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._plan.get(param_name)
        if value is not None and param_distribution._contains(param_distribution.to_internal_repr(value)):
            return value
        return self._random.sample_independent(study, trial, param_name, param_distribution)


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
