"""Settings as numbers, and back."""

import numpy as np
import pytest

from search.samplers.encoding import ABSENT_CHOICE, Encoding
from search.study import KnownSuggester, fill_leaves, spec

RECIPE = {
    "lr": {"low": 1e-3, "high": 1e-1, "log": True},
    "blocks": {"low": 1, "high": 7, "step": 2},
    "drop": {"low": 0.0, "high": 0.5, "step": 0.1},
    "width": {"low": 8, "high": 64, "log": True},
    "seed": 3,
    "model": {
        "choices": {"small": {"flips": {"choices": [True, False]}}, "large": {"depth": {"low": 2, "high": 9}}}
    },
}
SHIPPED = sorted(path.stem for path in spec.SHIPPED.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_recipes_come_back_as_they_were(name: str) -> None:
    recipe = spec.load_spec(name).recipe
    encoding = Encoding(recipe)
    for row in encoding.sample(20, np.random.default_rng(1)):
        params = encoding.decode(row)
        asked = KnownSuggester(params)
        fill_leaves(recipe, asked)
        assert set(asked.seen) == set(params)  # nothing is missing, and nothing is of another branch
        again = encoding.decode(encoding.encode(params))
        assert again.keys() == params.keys()
        assert all(again[key] == pytest.approx(params[key]) for key in params)


def test_numbers_are_positions_in_the_range_and_choices_their_number() -> None:
    encoding = Encoding(RECIPE)
    names = [setting.name for setting in encoding.settings]
    params = {"lr": 1e-2, "blocks": 3, "drop": 0.5, "width": 8, "model": "large", "model.large.depth": 9}
    found = dict(zip(names, encoding.encode(params), strict=True))
    expected = {"lr": 0.5, "blocks": 1 / 3, "drop": 1.0, "width": 0.0, "model": 1.0, "model.large.depth": 1.0}
    assert found == pytest.approx({**expected, "model.small.flips": ABSENT_CHOICE})


def test_value_of_an_older_space_is_as_near_as_can_be() -> None:
    encoding = Encoding(RECIPE)
    row = encoding.encode({"lr": 5.0, "model": "gone"})
    found = {setting.name: place for setting, place in zip(encoding.settings, row, strict=True)}
    assert found["lr"] == 1.0 and found["model"] == ABSENT_CHOICE


def test_variation_draws_one_setting_anew_and_what_depends_on_it() -> None:
    encoding, random = Encoding(RECIPE), np.random.default_rng(0)
    rows = encoding.sample(400, random)
    kinds = set()
    for before, after in zip(rows, encoding.mutate(rows, random), strict=True):
        old, new = encoding.decode(before), encoding.decode(after)
        changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        branch = {name for name in changed if name.startswith("model")}
        assert len(changed - branch) + bool(branch) <= 1
        assert branch <= {"model.large.depth"} or branch <= {"model.small.flips"} or "model" in branch
        kinds |= changed
    assert kinds == {setting.name for setting in encoding.settings}


def test_every_value_of_a_grid_is_drawn_equally_often() -> None:
    encoding = Encoding({"blocks": RECIPE["blocks"], "drop": RECIPE["drop"]})
    drawn = [encoding.decode(row) for row in encoding.sample(6000, np.random.default_rng(0))]
    for name, values in (("blocks", [1, 3, 5, 7]), ("drop", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])):
        counts = [sum(abs(one[name] - value) < 1e-9 for one in drawn) for value in values]
        assert sum(counts) == 6000
        assert min(counts) > 0.85 * 6000 / len(values)


def test_space_without_open_settings_has_no_columns() -> None:
    assert Encoding({"seed": 3}).sample(2, np.random.default_rng(0)).shape == (2, 0)
