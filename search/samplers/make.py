"""How recipes are drawn: the samplers, and what they are shown of a study."""

import warnings
from datetime import datetime
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.database import study_facts_of
from search.samplers.base import OneByOne
from search.samplers.gp import GaussianSampler
from search.samplers.local_search import NeighbourSampler
from search.study import StudySpec


def make_sampler(spec: StudySpec, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`. A seed per trial: a continued study draws what an unbroken one would.

    TPE with `multivariate` and `group` models the settings of one branch of a conditional space
    jointly; without `group` it would silently draw every conditional setting independently.
    """
    seed = (spec.seed * 1_000_003 + number) % 2**32
    if spec.sampler == "random":
        return ShownSampler(optuna.samplers.RandomSampler(seed=seed))
    if spec.sampler == "neighbours":
        return ShownSampler(NeighbourSampler(seed))
    if spec.sampler == "gp":
        return ShownSampler(GaussianSampler(spec.recipe, spec.ladder, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return ShownSampler(
            optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=8)
        )


class ShownSampler(OneByOne):
    """Shows another sampler every trial once, at the highest rung that it has reached.

    Samplers learn from finished trials alone. One that waits at a rung is shown as pruned there, which
    is what it will be if it never goes on. One trial long: it remembers what it drew.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler) -> None:
        self._inner = inner
        self._draw: optuna.Trial | None = None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._draw is None:
            shown = optuna.create_study(direction="maximize", sampler=self._inner)
            shown.add_trials(_earlier(study))
            shown.add_trials(
                [_shown(t) for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            )
            self._draw = shown.ask()
        if isinstance(param_distribution, FloatDistribution):
            d = param_distribution
            return self._draw.suggest_float(param_name, d.low, d.high, step=d.step, log=d.log)
        if isinstance(param_distribution, IntDistribution):
            i = param_distribution
            return self._draw.suggest_int(param_name, i.low, i.high, step=i.step, log=i.log)
        assert isinstance(param_distribution, optuna.distributions.CategoricalDistribution)
        return self._draw.suggest_categorical(param_name, param_distribution.choices)


class _Shown(FrozenTrial):
    """A trial as a sampler is to see it.

    A study copies what it takes in, setting by setting; nobody changes these, and copies of thousands
    would take seconds for every new trial.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _shown(trial: FrozenTrial) -> FrozenTrial:
    state, now = trial.state, datetime.now()
    if not state.is_finished():
        # What waits for its first step, settings unknown, must not be handed out by `ask`.
        state = TrialState.PRUNED if trial.intermediate_values else TrialState.RUNNING
    return _Shown(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=trial.value,
        datetime_start=now,
        datetime_complete=now if state.is_finished() else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs={},
        system_attrs=trial.system_attrs,  # where Optuna keeps constraints
    )


def prior_trial(trial: FrozenTrial) -> dict[str, Any]:
    """What a sampler is to know of a trial of another study, as plain JSON for `StudyFacts.earlier_trials`."""
    return {
        "params": trial.params,
        "distributions": {
            name: optuna.distributions.distribution_to_json(one) for name, one in trial.distributions.items()
        },
        "scores": trial.intermediate_values,
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
    }


def _earlier(study: optuna.Study) -> list[FrozenTrial]:
    """Trials of other studies that this one carries on from."""
    now = datetime.now()
    return [
        _Shown(
            number=-1,
            trial_id=-1,
            state=TrialState.PRUNED if told["value"] is None else TrialState.COMPLETE,
            value=told["value"],
            datetime_start=now,
            datetime_complete=now,
            params=told["params"],
            distributions={
                name: optuna.distributions.json_to_distribution(one)
                for name, one in told["distributions"].items()
            },
            intermediate_values={int(percent): score for percent, score in told["scores"].items()},
            user_attrs={},
            system_attrs={},
        )
        for told in study_facts_of(study).earlier_trials
    ]
