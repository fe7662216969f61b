"""The trials that samplers are given."""

import random
import warnings

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.samplers.make import SamplerWithAllTrials

RATE = FloatDistribution(1e-4, 1e-2, log=True)
LOSS = CategoricalDistribution(["l1", "mse"])


def tpe() -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=5, multivariate=True, group=True, n_startup_trials=8)


def trial(dice: random.Random, waits: bool) -> FrozenTrial:
    return create_trial(
        state=TrialState.WAITING if waits else TrialState.PRUNED,
        params={"rate": 10 ** dice.uniform(-4, -2), "loss": dice.choice(LOSS.choices)},
        distributions={"rate": RATE, "loss": LOSS},
        intermediate_values={25: dice.uniform(20, 30)},
    )


def draw(study: optuna.Study) -> tuple[float, object]:
    """The settings of a new trial: made as a worker makes it, because `ask` would take one that waits."""
    new = optuna.Trial(study, study._storage.create_new_trial(study._study_id))
    return new.suggest_float("rate", 1e-4, 1e-2, log=True), new.suggest_categorical("loss", LOSS.choices)


def test_trial_that_waits_at_a_rung_counts_like_one_pruned_there() -> None:
    real = optuna.create_study(direction="maximize", sampler=SamplerWithAllTrials(tpe()))
    plain = optuna.create_study(direction="maximize", sampler=tpe())
    for study in (real, plain):
        dice = random.Random(3)
        study.add_trials([trial(dice, waits=study is real and n % 3 == 2) for n in range(30)])
    assert draw(real) == draw(plain)


def test_trials_are_left_as_they_are() -> None:
    study = optuna.create_study(direction="maximize", sampler=SamplerWithAllTrials(tpe()))
    study.add_trials([trial(random.Random(n), waits=n % 2 == 0) for n in range(20)])
    before = study.trials
    draw(study)
    assert study.trials[:20] == before
