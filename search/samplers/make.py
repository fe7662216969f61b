"""Choice of the sampler for a trial, and the trials that the sampler learns from."""

import warnings
from datetime import datetime
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.database import study_facts_of
from search.samplers.base import IndependentSampler
from search.samplers.gp import GaussianSampler
from search.samplers.local_search import NeighbourSampler
from search.study import StudySpec


def make_sampler(spec: StudySpec, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`. Each trial has its own seed: an interrupted study proposes the same settings.

    TPE with `multivariate` and `group` models the settings of one branch of a conditional space
    jointly; without `group` it would silently draw every conditional setting independently.
    """
    seed = (spec.seed * 1_000_003 + number) % 2**32
    if spec.sampler == "random":
        return SamplerWithAllTrials(optuna.samplers.RandomSampler(seed=seed))
    if spec.sampler == "neighbours":
        return SamplerWithAllTrials(NeighbourSampler(seed))
    if spec.sampler == "gp":
        return SamplerWithAllTrials(GaussianSampler(spec.recipe, spec.ladder, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SamplerWithAllTrials(
            optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=8)
        )


class SamplerWithAllTrials(IndependentSampler):
    """Gives another sampler all trials, including paused ones at the highest rung that they have reached.

    Optuna's samplers learn from finished trials only. A trial that is paused at a rung is presented as pruned there.
    An instance serves one trial.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler) -> None:
        self._inner = inner
        self._draw: optuna.Trial | None = None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._draw is None:
            shown = optuna.create_study(direction="maximize", sampler=self._inner)
            shown.add_trials(_trials_of_other_studies(study))
            shown.add_trials(
                [_visible_trial(t) for t in study.get_trials(deepcopy=False) if t.number != trial.number]
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


class _VisibleTrial(FrozenTrial):
    """A trial as presented to a sampler.

    It is not copied when it is added to a study: deep copies of thousands of trials would take seconds.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _visible_trial(trial: FrozenTrial) -> FrozenTrial:
    state, now = trial.state, datetime.now()
    if not state.is_finished():
        # A queued trial has no settings yet; as WAITING it would be returned by `ask`.
        state = TrialState.PRUNED if trial.intermediate_values else TrialState.RUNNING
    return _VisibleTrial(
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


def trial_for_other_studies(trial: FrozenTrial) -> dict[str, Any]:
    """A trial as plain JSON for `StudyFacts.earlier_trials` of another study."""
    return {
        "params": trial.params,
        "distributions": {
            name: optuna.distributions.distribution_to_json(one) for name, one in trial.distributions.items()
        },
        "scores": trial.intermediate_values,
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
    }


def _trials_of_other_studies(study: optuna.Study) -> list[FrozenTrial]:
    """Trials of the earlier studies from which this one was warm-started."""
    now = datetime.now()
    return [
        _VisibleTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.PRUNED if entry["value"] is None else TrialState.COMPLETE,
            value=entry["value"],
            datetime_start=now,
            datetime_complete=now,
            params=entry["params"],
            distributions={
                name: optuna.distributions.json_to_distribution(one)
                for name, one in entry["distributions"].items()
            },
            intermediate_values={int(percent): score for percent, score in entry["scores"].items()},
            user_attrs={},
            system_attrs={},
        )
        for entry in study_facts_of(study).earlier_trials
    ]
