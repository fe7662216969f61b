"""What our samplers have in common: settings asked for one by one, and a plan for all of a trial at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


class OneByOne(optuna.samplers.BaseSampler):
    """Settings are asked for one by one, as a recipe with branches needs it; Optuna's joint draws are not used."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


class PlannedSampler(OneByOne):
    """Asks `plan` before a trial begins; what the plan does not have, or not in range, is drawn at random."""

    def __init__(self, seed: int) -> None:
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._plan: Mapping[str, Any] = {}

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Mapping[str, Any]:
        """Settings for trial `number`, after all these others."""
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
