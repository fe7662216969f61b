"""Base classes of the samplers of this folder."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


class IndependentSampler(optuna.samplers.BaseSampler):
    """A sampler without Optuna's relative sampling: a recipe with branches asks for settings one by one."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


class PlannedSampler(IndependentSampler):
    """A sampler that chooses all settings of a trial at once, in `plan`.

    Settings that the plan does not have, or that are out of range, are drawn at random.
    """

    def __init__(self, seed: int) -> None:
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._plan: Mapping[str, Any] = {}

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Mapping[str, Any]:
        """Settings for trial `number`; `trials` are all others."""
        raise NotImplementedError

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        self._plan = self.plan(others, trial.number)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._plan.get(param_name)
        if value is not None and param_distribution._contains(param_distribution.to_internal_repr(value)):
            return value
        return self._random.sample_independent(study, trial, param_name, param_distribution)
