"""Local search on a grid: the maximum of every branch is found, nothing is tried twice, and the same seed repeats."""

from typing import Any

import optuna
import pytest

from search.samplers.local_search import NeighbourSampler


def hill(trial: optuna.Trial, best_kind: str) -> float:
    """Two branches of 50 and 24 recipes; "b" starts lower but is higher at its top, or the reverse."""
    kind = trial.suggest_categorical("kind", ["a", "b"])
    if kind == "a":
        x = trial.suggest_float("kind.a.x", 0.0, 0.9, step=0.1)
        y = trial.suggest_categorical("kind.a.y", [1, 2, 4, 8, 16])
        height = 10 - 20 * abs(x - 0.7) - abs(y - 8) / 4
        return height + (10 if best_kind == "a" else 0)
    n = trial.suggest_int("kind.b.n", 3, 13, step=2)
    m = trial.suggest_int("kind.b.m", 1, 4)
    return 15 - 3 * abs(n - 11) - 4 * abs(m - 4)


def search_grid(best_kind: str, trials: int, seed: int = 0) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize", sampler=NeighbourSampler(seed))
    study.enqueue_trial({"kind": "a", "kind.a.x": 0.2, "kind.a.y": 2})
    study.enqueue_trial({"kind": "b", "kind.b.n": 3, "kind.b.m": 1})
    study.optimize(lambda trial: hill(trial, best_kind), n_trials=trials)
    assert study.best_trial.params["kind"] == best_kind
    assert study.best_value == (20 if best_kind == "a" else 15)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("best_kind", ["a", "b"])
def test_top_of_the_better_branch_is_found_in_few_trials(best_kind: str) -> None:
    search_grid(best_kind, trials=40)  # of 74 recipes


def test_every_setting_is_improved_where_there_is_one_branch() -> None:
    study = optuna.create_study(direction="maximize", sampler=NeighbourSampler(0))
    study.enqueue_trial({"n": 2, "m": 3})
    study.optimize(
        lambda trial: -abs(trial.suggest_int("n", 1, 15) - 11) - abs(trial.suggest_int("m", 1, 15) - 13),
        n_trials=60,  # of 225 recipes
    )
    assert study.best_params == {"n": 11, "m": 13}


def test_no_recipe_is_tried_twice_until_neighbours_run_out() -> None:
    tried = [tuple(sorted(params.items())) for params in search_grid("a", trials=60)]
    assert len(set(tried)) == len(tried)


def test_equal_seeds_try_equal_recipes() -> None:
    assert search_grid("a", trials=30, seed=3) == search_grid("a", trials=30, seed=3)


def test_random_draws_go_on_when_the_grid_is_used_up() -> None:
    study = optuna.create_study(sampler=NeighbourSampler(0))
    study.optimize(lambda trial: trial.suggest_int("n", 1, 2), n_trials=6)
    assert {trial.params["n"] for trial in study.trials} == {1, 2}
