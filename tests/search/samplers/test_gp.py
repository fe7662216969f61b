"""The Gaussian sampler: what it proposes after trials whose scores are made up."""

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.samplers import gp
from search.samplers.encoding import Encoding
from search.samplers.gp import GaussianSampler
from search.samplers.make import SamplerWithAllTrials
from search.scheduler import LadderConfig
from search.study import fill_leaves

LADDER = LadderConfig(rungs=1, factor=3)  # 33 %, the end
RECIPE: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "loss": {"choices": ["l1", "mse", "psnr"]},
    "model": {
        "choices": {
            "small": {"blocks": {"low": 1, "high": 4}},
            "large": {"width": {"choices": [8, 16, 32]}, "depth": {"low": 2, "high": 9}},
        }
    },
}
DISTRIBUTIONS = {setting.name: setting.distribution for setting in Encoding(RECIPE).settings}


def quality(params: Mapping[str, Any]) -> float:
    """In dB; best for a large model of width 16, depth 9, mse, at a rate of 0.01: 32."""
    found = 25 - 2 * (math.log10(params["lr"]) + 2) ** 2 + 2 * (params["loss"] == "mse")
    if params["model"] == "small":
        return found + 0.5 * params["model.small.blocks"]
    return found + params["model.large.depth"] / 3 + 2 * (params["model.large.width"] == 16)


def trial(
    params: Mapping[str, Any],
    state: TrialState = TrialState.PRUNED,
    excess: float | None = None,
    **scores: float,
) -> FrozenTrial:
    at_rung, end = scores.get("at_rung"), scores.get("end")
    return create_trial(
        state=state,
        value=end,
        params=dict(params),
        distributions={name: DISTRIBUTIONS[name] for name in params},
        intermediate_values={} if at_rung is None else {33: at_rung},
        system_attrs={} if excess is None else {"constraints:parameters": excess},
    )


def at_random(seed: int) -> dict[str, Any]:
    encoding = Encoding(RECIPE)
    return encoding.decode(encoding.sample(1, np.random.default_rng(seed))[0])


def scored(seeds: range) -> list[FrozenTrial]:
    return [trial(params, at_rung=quality(params) - 3) for params in map(at_random, seeds)]


def proposal(trials: list[FrozenTrial], seed: int = 0) -> dict[str, Any]:
    study = optuna.create_study(
        direction="maximize", sampler=SamplerWithAllTrials(GaussianSampler(RECIPE, LADDER, seed))
    )
    study.add_trials(trials)
    new = optuna.Trial(study, study._storage.create_new_trial(study._study_id))
    fill_leaves(RECIPE, new)
    return dict(new.params)


def test_finds_the_top_of_a_conditional_space_that_chance_does_not() -> None:
    ours = scored(range(6))
    while len(ours) < 30:
        params = proposal(ours, seed=len(ours))
        ours.append(trial(params, at_rung=quality(params) - 3))
    best = max(t.intermediate_values[33] + 3 for t in ours)
    by_chance = [max(quality(at_random(seed)) for seed in range(30 * n, 30 * n + 30)) for n in range(20)]
    assert best > 31.5
    assert best > np.quantile(by_chance, 0.75)


def test_draws_at_random_while_few_trials_have_scores() -> None:
    few = scored(range(gp.STARTUP - 1))
    plain = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=4)).ask()
    fill_leaves(RECIPE, plain)
    assert proposal(few, seed=4) == plain.params


def test_same_trials_and_seed_give_the_same_proposal_and_another_seed_another() -> None:
    trials = scored(range(12))
    assert proposal(trials, seed=1) == proposal(trials, seed=1)
    assert proposal(trials, seed=1) != proposal(trials, seed=2)


def test_scores_at_a_rung_and_at_the_end_are_not_taken_for_each_other() -> None:
    """Finished trials score 3 dB more than they did at the rung, and are no better for it."""
    trials = scored(range(24))
    worst = sorted(trials, key=lambda t: t.intermediate_values[33])[:5]
    for one in worst:
        one.state, one.value = TrialState.COMPLETE, one.intermediate_values[33] + 3
    assert quality(proposal(trials)) > np.quantile([quality(t.params) for t in trials], 0.9)


def test_recipe_that_was_tried_is_not_proposed_again() -> None:
    recipe = {
        "loss": {"choices": ["l1", "mse"]},
        "flips": {"choices": [True, False]},
        "bases": {"low": 1, "high": 2},
    }
    encoding = Encoding(recipe)
    every = {tuple(row): encoding.decode(row) for row in encoding.sample(200, np.random.default_rng(0))}
    assert len(every) == 8
    left = every.popitem()[1]
    sampler = GaussianSampler(recipe, LADDER, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {setting.name: setting.distribution for setting in encoding.settings}
    for n, params in enumerate(every.values()):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED,
                params=params,
                distributions=distributions,
                intermediate_values={33: n},
            )
        )
    new = study.ask()
    fill_leaves(recipe, new)
    assert new.params == left


def test_workers_at_the_same_time_propose_different_recipes() -> None:
    trials = scored(range(20))
    first = proposal(trials)
    second = proposal([*trials, trial(first, state=TrialState.RUNNING)])
    third = proposal([*trials, *(trial(one, state=TrialState.RUNNING) for one in (first, second))])
    assert len({str(one) for one in (first, second, third)}) == 3


def test_models_over_a_limit_are_avoided() -> None:
    """Large ones are the best here, and are not allowed: their trials have no score."""
    trials = []
    for one in scored(range(40)):
        large = one.params["model"] == "large"
        score = {} if large else {"at_rung": one.intermediate_values[33]}
        trials.append(trial(one.params, excess=0.5 if large else -0.5, **score))
    assert sum(t.params["model"] == "large" for t in trials) > 10
    assert [proposal(trials, seed)["model"] for seed in range(5)] == ["small"] * 5


def test_recipes_that_diverge_are_avoided() -> None:
    trials = []
    for one in scored(range(40)):
        wild = one.params["lr"] > 3e-3
        trials.append(trial(one.params) if wild else one)
    assert sum(not t.intermediate_values for t in trials) > 10
    assert all(proposal(trials, seed)["lr"] < 3e-3 for seed in range(5))


def test_only_so_many_scores_are_learned_from_and_the_highest_rungs_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gp, "MOST_SCORES", 10)
    trials = scored(range(40))
    trials[3] = trial(trials[3].params, TrialState.COMPLETE, at_rung=20.0, end=23.0)
    for number, one in enumerate(trials):
        one.number = number
    telling, scores = GaussianSampler(RECIPE, LADDER, seed=0)._scored(trials)
    assert [t.number for t in telling] == [3, *range(39, 31, -1)]
    assert scores[0] == {0: 20.0, 1: 23.0}


def test_study_without_open_settings_and_values_of_an_older_space_are_no_trouble() -> None:
    study = optuna.create_study(direction="maximize", sampler=GaussianSampler({"seed": 1}, LADDER, seed=0))
    study.add_trials(
        [create_trial(state=TrialState.PRUNED, intermediate_values={33: 20.0}) for _ in range(9)]
    )
    assert study.ask().params == {}
    trials = scored(range(20))
    dice = random.Random(0)
    for one in trials:
        if dice.random() < 0.5:  # known recipes with a model of their own
            for name in [name for name in one.params if name.startswith("model")]:
                del one._params[name], one._distributions[name]
    assert proposal(trials).keys() >= {"lr", "loss", "model"}
