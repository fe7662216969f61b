"""Open leaves: what they refuse, what they are called, and what they reach."""

import math
from typing import Any

import optuna
import pytest

from search.study import (
    Choices,
    KnownSuggester,
    RandomSuggester,
    SpaceError,
    corner_recipes,
    fill_leaves,
    open_leaves,
    with_replacements,
)
from search.study.space import leaf_combinations

RECIPE: dict[str, Any] = {
    "steps": 100,
    "model": {"width": {"choices": [8, 16, 32]}, "blocks": {"choices": {"shallow": [1, 1], "paper": [2, 4]}}},
    "optimizer": {
        "choices": {
            "adamw": {"kind": "adamw", "lr": {"low": 1e-4, "high": 1e-2, "log": True}},
            "sgd": {"kind": "sgd", "momentum": {"low": 0.5, "high": 0.9, "step": 0.1}},
        }
    },
    "layers": {"low": 3, "high": 9, "step": 3},
}
NAMES = {
    "model.width",
    "model.blocks",
    "optimizer",
    "optimizer.adamw.lr",
    "optimizer.sgd.momentum",
    "layers",
}

REFUSED = [
    ({"low": 0.1, "high": 0.01}, "low (0.1) must be below high (0.01)"),
    ({"low": 1, "high": 1}, "low (1) must be below high (1)"),
    ({"low": 0, "high": 1.0, "log": True}, "a log range needs low > 0 and no step"),
    ({"low": 1, "high": 9, "log": True, "step": 2}, "a log range needs low > 0 and no step"),
    ({"low": 1, "high": 10, "step": 2}, "step (2) must divide high - low (9)"),
    ({"low": 0.0, "high": 1.0, "step": 0.3}, "step (0.3) must divide high - low (1)"),
    ({"low": 1, "high": 9, "step": 0.5}, "a range of whole numbers needs a whole step, not 0.5"),
    ({"low": 1, "high": 9, "step": 0}, "step: Input should be greater than 0"),
    ({"low": 1}, "high is missing"),
    ({"high": 1.0}, "low is missing"),
    ({"low": 1.0, "high": float("inf")}, "high: Input should be a finite number"),
    (
        {"low": 1e-4, "high": 1e-2, "logg": True},
        "unknown key logg; allowed are low, high, log, step; did you mean log?",
    ),
    ({"low": 1, "high": 3, "choices": [1]}, "unknown key choices; allowed are low, high, log, step"),
    ({"choices": [1, 2], "log": True}, "unknown key log; allowed are choices"),
    ({"choices": []}, "choices is empty; write at least one"),
    ({"choices": {}}, "choices is empty; write at least one"),
    ({"choices": [1, 2, 1]}, "choices has a value twice: [1, 2, 1]"),
    (
        {"choices": [[1, 2], [3]]},
        "[1, 2] needs a name, because the database stores it: choices = { small = [1, 2], ... }",
    ),
]


class Names(RandomSuggester):
    """Remembers what was asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asked: list[str] = []

    def suggest_float(self, name: str, *arguments: Any, **options: Any) -> float:
        self.asked.append(name)
        return super().suggest_float(name, *arguments, **options)

    def suggest_int(self, name: str, *arguments: Any, **options: Any) -> int:
        self.asked.append(name)
        return super().suggest_int(name, *arguments, **options)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked.append(name)
        return super().suggest_categorical(name, choices)


@pytest.mark.parametrize(("leaf", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_searched_is_refused_by_its_dotted_path(leaf: Any, message: str) -> None:
    recipe = {"optimizer": {"choices": {"adamw": {"lr": leaf}}}}
    with pytest.raises(SpaceError) as caught:
        corner_recipes(recipe)
    assert str(caught.value).startswith("recipe.optimizer.adamw.lr: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("leaf", [{"low": "1", "high": 2}, {"low": True, "high": 2}, {"choices": 3}], ids=str)
def test_bounds_and_choices_of_the_wrong_kind_are_refused(leaf: Any) -> None:
    with pytest.raises(SpaceError, match=r"^recipe\.model\.width: (low|choices): Input should be a valid"):
        corner_recipes({"model": {"width": leaf}})


def test_names_are_dotted_paths_and_conditional_ones_name_their_choice() -> None:
    asked: set[str] = set()
    for seed in range(30):
        suggester = Names(seed)
        filled = fill_leaves(RECIPE, suggester)
        picked = "adamw" if "lr" in filled["optimizer"] else "sgd"
        other = {"adamw": "optimizer.sgd.momentum", "sgd": "optimizer.adamw.lr"}[picked]
        assert other not in suggester.asked
        asked |= set(suggester.asked)
    assert asked == NAMES


def test_optuna_sees_the_same_names_and_the_names_of_choices() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        filled = fill_leaves(RECIPE, trial)
        assert trial.params["model.width"] == filled["model"]["width"]
        assert {"shallow": [1, 1], "paper": [2, 4]}[trial.params["model.blocks"]] == filled["model"]["blocks"]
        assert filled["optimizer"]["kind"] == trial.params["optimizer"]
        study.tell(trial, 0.0)
    assert {name for trial in study.trials for name in trial.params} == NAMES


def test_filled_values_lie_in_their_ranges_and_on_their_grids() -> None:
    for seed in range(100):
        filled = fill_leaves(RECIPE, RandomSuggester(seed))
        assert filled["layers"] in (3, 6, 9)
        if "lr" in filled["optimizer"]:
            assert 1e-4 <= filled["optimizer"]["lr"] <= 1e-2
        else:
            tenths = filled["optimizer"]["momentum"] * 10
            assert tenths == pytest.approx(round(tenths))


def test_log_ranges_are_drawn_evenly_in_the_logarithm() -> None:
    suggester = RandomSuggester(0)
    draws = [suggester.suggest_float("lr", 1e-4, 1e-2, step=None, log=True) for _ in range(2000)]
    assert sum(math.log10(draw) < -3 for draw in draws) / 2000 == pytest.approx(0.5, abs=0.05)


def test_corners_reach_both_ends_of_every_range_and_every_choice() -> None:
    corners = corner_recipes(RECIPE)
    assert {corner["model"]["width"] for corner in corners} == {8, 16, 32}
    assert {tuple(corner["model"]["blocks"]) for corner in corners} == {(1, 1), (2, 4)}
    assert {corner["layers"] for corner in corners} == {3, 9}
    optimizers = [corner["optimizer"] for corner in corners]
    assert {o["lr"] for o in optimizers if "lr" in o} == {1e-4, 1e-2}
    assert {o["momentum"] for o in optimizers if "momentum" in o} == {0.5, 0.9}


def test_combinations_pair_every_end_with_every_choice() -> None:
    combined = list(leaf_combinations(RECIPE, "", most=1000))
    assert len(combined) == 3 * 2 * (2 + 2) * 2
    assert len({repr(one) for one in combined}) == len(combined)
    assert len(list(leaf_combinations(RECIPE, "", most=7))) == 7


def test_open_leaves_are_listed_with_their_paths_also_inside_choices() -> None:
    found = dict(open_leaves(RECIPE))
    assert found.keys() == NAMES
    names = {name: leaf.names for name, leaf in found.items() if isinstance(leaf, Choices)}
    assert names == {
        "model.width": [8, 16, 32],
        "model.blocks": ["shallow", "paper"],
        "optimizer": ["adamw", "sgd"],
    }


def test_parts_are_replaced_key_by_key_but_leaves_and_kinds_whole() -> None:
    fixed = {"model": {"width": 12}, "optimizer": {"kind": "adamw", "lr": 0.5}, "layers": 4, "seed": 7}
    assert with_replacements(RECIPE, fixed) == {
        "steps": 100,
        "model": {"width": 12, "blocks": RECIPE["model"]["blocks"]},
        "optimizer": {"kind": "adamw", "lr": 0.5},
        "layers": 4,
        "seed": 7,
    }
    assert with_replacements(RECIPE, {}) == RECIPE
    assert RECIPE["layers"] == {"low": 3, "high": 9, "step": 3}


def test_closed_recipe_stays_as_it_is() -> None:
    recipe = {"steps": 3, "model": {"kind": "dncnn", "blocks": [1, 2]}, "flag": True}
    assert fill_leaves(recipe, RandomSuggester(0)) == recipe
    assert corner_recipes(recipe) == [recipe]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.width": 12}, "model.width: 12 is not among 8, 16, 32"),
        ({"model.blocks": "papre"}, "model.blocks: 'papre' is not among shallow, paper; did you mean paper?"),
        ({"layers": 4}, "layers: 4 is not a whole number from 3 to 9 in steps of 3"),
        ({"layers": 6.0}, "layers: 6.0 is not a whole number from 3 to 9 in steps of 3"),
        (
            {"optimizer": "adamw", "optimizer.adamw.lr": 1.0},
            "optimizer.adamw.lr: 1.0 is outside 0.0001 to 0.01",
        ),
        ({"optimizer": "adamw", "optimizer.adamw.lr": "high"}, "optimizer.adamw.lr: 'high' is outside"),
        (
            {"optimizer": "sgd", "optimizer.sgd.momentum": 0.65},
            "optimizer.sgd.momentum: 0.65 is not on the grid",
        ),
    ],
    ids=str,
)
def test_known_values_outside_their_leaf_are_refused(values: Any, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        fill_leaves(RECIPE, KnownSuggester(values))
    assert str(caught.value).startswith(message)


def test_known_values_are_taken_as_they_are() -> None:
    known = {"model.width": 16, "optimizer": "adamw", "optimizer.adamw.lr": 3e-3, "layers": 6}
    filled = fill_leaves(RECIPE, KnownSuggester(known))
    assert filled["model"]["width"] == 16
    assert filled["optimizer"] == {"kind": "adamw", "lr": 3e-3}
    assert filled["layers"] == 6
