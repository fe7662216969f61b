"""Predictions from low rungs and settings: made-up trainings whose truth is known."""

import math

import numpy as np
import pytest

from search.samplers.surrogate import (
    LENGTH_SCALE,
    MEAN_VARIANCE,
    NOISE,
    RUNG_VARIANCE,
    Floats,
    Observations,
    Surrogate,
)

CHOICES = np.array([False, False, True])


def settings(count: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    rows = random.random((count, 3))
    rows[:, 2] = np.floor(3 * rows[:, 2])
    return rows


def truth(rows: Floats) -> Floats:
    return np.asarray(
        25
        + 3 * np.sin(2 * rows[:, 0])
        - 2 * (rows[:, 1] - 0.4) ** 2
        + np.array([0, 1, -1])[rows[:, 2].astype(int)]
    )


def at_rungs(low: Floats, high: Floats, finished: int) -> Observations:
    """All at the lowest rung, the first few at the end, too."""
    count = len(low)
    recipes = np.concatenate([np.arange(count), np.arange(finished)])
    rungs = np.concatenate([np.zeros(count), np.ones(finished)])
    return Observations(recipes, rungs, np.concatenate([low, high[:finished]]))


def correlation(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_settings_predict_the_end_of_recipes_that_nobody_tried() -> None:
    rows, fresh = settings(40, seed=0), settings(200, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.3, 40)
    ended = Observations(np.arange(40), np.zeros(40), truth(rows) + noise)
    mean, deviation = Surrogate(rows, CHOICES, ended, top=0).predict(fresh)
    assert correlation(mean, truth(fresh)) > 0.95
    assert np.mean(np.abs(mean - truth(fresh)) < 2 * deviation) > 0.9


@pytest.mark.parametrize("telling", [True, False])
def test_low_rung_counts_for_as_much_as_it_is_worth(telling: bool) -> None:
    rows, fresh = settings(60, seed=3), settings(200, seed=4)
    random = np.random.default_rng(5)
    early = truth(rows) - 4 if telling else random.normal(20, 2, 60)
    found = Surrogate(rows, CHOICES, at_rungs(early, truth(rows), finished=12), top=1)
    alone = Surrogate(rows[:12], CHOICES, Observations(np.arange(12), np.zeros(12), truth(rows[:12])), top=0)
    with_rung = correlation(found.predict(fresh)[0], truth(fresh))
    without = correlation(alone.predict(fresh)[0], truth(fresh))
    assert with_rung > 0.95 if telling else with_rung > without - 0.15


def test_mean_and_deviation_are_those_of_a_gaussian_process() -> None:
    """Against the textbook formula, covariance by covariance."""
    rows, fresh = settings(7, seed=6), settings(3, seed=7)
    scores = np.random.default_rng(8).normal(25, 1, 10)
    observed = at_rungs(scores[:7], scores[7:], finished=3)
    found = Surrogate(rows, CHOICES, observed, top=1)
    p = found.hyperparameters
    *effects, together = p.effect_variances.tolist()
    own, rho, tau = float(p.training_variance), float(p.rung_correlation), float(p.training_rung_correlation)
    grows = float(p.growth)

    def covariance(a: Floats, b: Floats, same: bool, rung: float, other: float) -> float:
        apart = [float(x != y) if choice else abs(x - y) for x, y, choice in zip(a, b, CHOICES, strict=True)]
        parts = sum(
            effect * (1 - d if choice else math.exp(-(d**2) / (2 * LENGTH_SCALE**2)))
            for effect, d, choice in zip(effects, apart, CHOICES, strict=True)
        )
        whole = together * math.exp(-4 * sum(d**2 for d in apart) / 3)
        gap = abs(rung - other)
        inner = (parts + whole) * rho**gap + same * own * tau**gap
        outer = MEAN_VARIANCE * rho**gap + RUNG_VARIANCE * (gap == 0)
        return math.exp(grows * (rung + other - 2)) * inner + outer

    points = list(zip(observed.recipe.tolist(), observed.rung.tolist(), strict=True))
    k = np.array([[covariance(rows[i], rows[j], i == j, r, q) for j, q in points] for i, r in points])
    k += NOISE * np.eye(10)
    low, high = np.quantile(scores, [0.25, 0.75])
    clipped = np.maximum(scores, low - 1.5 * (high - low))
    y = (clipped - clipped.mean()) / clipped.std()
    means, deviations = found.predict(fresh)
    for row, mean, deviation in zip(fresh, means, deviations, strict=True):
        s = np.array([covariance(row, rows[j], False, 1.0, q) for j, q in points])
        assert mean == pytest.approx(clipped.mean() + clipped.std() * s @ np.linalg.solve(k, y))
        before = covariance(row, row, False, 1.0, 1.0)
        assert deviation == pytest.approx(clipped.std() * math.sqrt(before - s @ np.linalg.solve(k, s)))


def test_training_is_known_better_than_its_settings() -> None:
    rows = np.repeat(settings(20, seed=9), 2, axis=0)  # each twice, with luck of its own
    luck = np.random.default_rng(10).normal(0, 2, 40)
    early = truth(rows) + luck
    found = Surrogate(rows, CHOICES, at_rungs(early, early + 3, finished=20), top=1)
    waiting = np.arange(20, 40)
    with_luck, _ = found.predict(rows[20:], waiting)
    without, _ = found.predict(rows[20:])
    end = (early + 3)[20:]
    assert np.abs(with_luck - end).mean() < 0.6 * np.abs(without - end).mean()


def test_pending_trainings_make_sure_and_change_nothing_else() -> None:
    rows, fresh = settings(15, seed=11), settings(1, seed=12)
    found = Surrogate(rows, CHOICES, Observations(np.arange(15), np.zeros(15), truth(rows)), top=0)
    mean, deviation = found.predict(fresh)
    sure, surer = found.with_pending(fresh).predict(fresh)
    assert sure == pytest.approx(mean, abs=0.05)
    assert surer < deviation
    assert found.predict(fresh)[1] == deviation


def test_one_bad_training_does_not_blur_the_rest() -> None:
    rows, fresh = settings(30, seed=13), settings(200, seed=14)
    scores = truth(rows)
    scores[0] = -200.0
    found = Surrogate(rows, CHOICES, Observations(np.arange(30), np.zeros(30), scores), top=0)
    assert correlation(found.predict(fresh)[0], truth(fresh)) > 0.9


def test_equal_scores_predict_themselves() -> None:
    rows = settings(8, seed=15)
    mean, _ = Surrogate(
        rows, CHOICES, Observations(np.arange(8), np.zeros(8), np.full(8, 27.5)), top=0
    ).predict(rows)
    assert mean == pytest.approx(np.full(8, 27.5))
