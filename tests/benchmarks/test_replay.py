"""The arithmetic of replayed searches (tests/benchmarks/replay.py), on curves made by hand."""

from typing import Any

import numpy as np
import optuna
import pytest

from search.scheduler import LadderConfig
from tests.benchmarks import tuners
from tests.benchmarks.curve_model import RIDGE, CurveModel, _targets
from tests.benchmarks.proposals import AtRandom, IgnoresScores, Sampled
from tests.benchmarks.recording import Curve
from tests.benchmarks.tuners import FinishPlan, State, whole, with_rungs

NEVER = optuna.pruners.NopPruner()
ONE = FinishPlan(needed=1, most=1)
RECIPE = {
    "rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "loss": {"choices": {"l1": {}, "ssim": {"weight": {"low": 1, "high": 3}}}},
}


class Given(IgnoresScores):
    """Hands out the curves in their order."""

    def __init__(self, curves: list[Curve]) -> None:
        self.left = list(curves)

    def next(self) -> Curve | None:
        return self.left.pop(0) if self.left else None


def ended(states: list[State], budget: float, finish_plan: FinishPlan = ONE) -> float:
    return float(tuners.ended(states, [budget], finish_plan)[0])


def curve(early: float, final: float, **settings: Any) -> Curve:
    """16 s of training and 1 s for a score; `early` is the score until half of the training."""
    scores = np.where(np.arange(1, 17) <= 8, early, final)
    return Curve(settings, scores, final, training=16.0, evaluation=1.0)


def test_way_costs_its_steps_and_the_scores_on_it() -> None:
    one = curve(20, 25)
    assert one.seconds(0, 1) == 1 + 1  # scored at the rung
    assert one.seconds(1, 4) == 3 + 2  # at 2/16 and at 4/16
    assert one.seconds(0, 16) == 16 + 8 + 1  # at each eighth, and on all pixels
    assert one.seconds(0, 1) + one.seconds(1, 16) == one.seconds(0, 16) + 1


def test_score_under_a_mask_counts_as_the_best_before() -> None:
    dsd = Curve({"sparsity": "dsd"}, np.arange(16.0), 20.0, 16.0, 1.0)
    assert [dsd.at_rung(n) for n in (8, 9, 10, 12, 13)] == [7, 8, 8, 8, 12]  # held at zero from 0.6 to 0.75


def test_search_without_a_pruner_has_the_best_of_what_it_could_pay() -> None:
    finals = [21.0, 24.0, 22.0, 25.0]
    states = whole(Given([curve(20, final) for final in finals]), NEVER)
    for spent in range(1, 110):
        paid = finals[: spent // 25]
        assert ended(states, spent) == max(paid, default=-np.inf)


def test_diverged_training_costs_what_it_ran_and_never_wins() -> None:
    diverged = Curve({}, np.array([20.0] * 5 + [np.nan] * 11), np.nan, 16.0, 1.0)
    states = whole(Given([diverged, curve(20, 22)]), NEVER)
    assert [state.seconds for state in states] == [6 + 3, 6 + 3 + 25]
    assert [state.psnr_db for state in states] == [-np.inf, 22]
    on_ladder = with_rungs(Given([diverged]), LadderConfig(factor=2, rungs=1))
    assert on_ladder[-1].finalists == ()


def test_ladder_keeps_what_the_last_stretch_of_its_leader_needs() -> None:
    curves = [curve(20, 25), curve(22, 24), curve(21, 26)]
    states = with_rungs(Given(curves), LadderConfig(factor=4, rungs=1))
    first, stretch = curves[0].seconds(0, 4), curves[0].seconds(4, 16)
    assert [state.seconds for state in states] == [first, 2 * first, 3 * first]
    assert ended(states, first + stretch - 0.1) == -np.inf
    assert ended(states, first + stretch) == 25  # the only one so far
    assert ended(states, 2 * first + stretch) == 24  # leads after two, though it ends lower
    assert ended(states, 3 * first + 2 * stretch, FinishPlan(most=1)) == 24
    assert ended(states, 3 * first + 2 * stretch, FinishPlan(most=2)) == 26
    for_two = 2 * first + 2 * stretch
    assert ended(states, for_two, FinishPlan(needed=2, most=2)) == 25  # no third is begun
    assert ended(states, for_two, FinishPlan(needed=1, most=2)) == 24  # a third is, and one can be paid


def test_ladder_promotes_the_best_of_four_at_once() -> None:
    curves = [curve(20 + n % 3, 25) for n in range(4)]
    states = with_rungs(Given(curves), LadderConfig(factor=4, rungs=1))
    first, stretch = curves[0].seconds(0, 4), curves[0].seconds(4, 16)
    assert [state.seconds for state in states] == [first * n for n in (1, 2, 3, 4)] + [4 * first + stretch]
    assert states[-1].psnr_db == 25


def test_median_pruner_saves_the_rest_of_a_training() -> None:
    curves = [curve(22, 25) for _ in range(5)] + [curve(20, 26)]
    states = whole(Given(curves), optuna.pruners.MedianPruner())
    assert states[-1].seconds == 5 * 25 + curves[0].seconds(0, 2)
    assert states[-1].psnr_db == 25


@pytest.fixture(scope="module")
def model() -> CurveModel:
    rng = np.random.default_rng(0)
    recorded = []
    for n in range(24):
        settings: dict[str, Any] = {"rate": 10 ** rng.uniform(-3, -1), "loss": ("l1", "ssim")[n % 2]}
        if n % 2:
            settings["loss.ssim.weight"] = int(rng.integers(1, 4))
        level = 20 + 2 * np.log10(settings["rate"]) + n % 2 + rng.normal(0, 0.1)
        recorded.append(curve(level - 1, level, **settings))
    return CurveModel(recorded, RECIPE)


def test_left_out_error_is_that_of_a_fit_without_the_configuration(model: CurveModel) -> None:
    encoded = np.stack([model._encode(one.settings) for one in model.recorded])
    columns = (np.where(np.isnan(encoded), model.absent, encoded) - model.absent) / model.spread
    design = np.column_stack([np.ones(len(columns)), columns])
    targets = np.stack([_targets(one) for one in model.recorded])
    penalty = np.diag([0.0] + [RIDGE] * columns.shape[1])
    for n in range(len(design)):
        others = np.arange(len(design)) != n
        x, y = design[others], targets[others]
        predicted = design[n] @ np.linalg.solve(x.T @ x + penalty, x.T @ y)
        np.testing.assert_allclose(model.residuals[n], targets[n] - predicted, atol=1e-9)


def test_sampler_finds_what_the_curves_say_is_better(model: CurveModel) -> None:
    def sampler(number: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=number, n_startup_trials=5)

    learning = Sampled(model, RECIPE, sampler, seed=0)
    whole(learning, NEVER, until=40 * 25)
    by_chance = AtRandom(model, RECIPE, seed=0)
    rates = [trial.params["rate"] for trial in learning.study.trials[20:]]
    others = [by_chance.next().settings["rate"] for _ in rates]
    assert np.log10(rates).mean() > np.log10(others).mean() + 0.3
