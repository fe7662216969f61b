"""Encoding of a study's open settings: recipes as rows of numbers for a surrogate."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.database import distribution_of_leaf
from search.study import Choices, open_leaves

Rows = NDArray[np.float64]
"""(recipes, settings): for a range the position in it, from 0 to 1; for choices the number of the choice."""
ABSENT_CHOICE, ABSENT_NUMBER = -1.0, 0.5
"""Values for settings that a recipe does not have because they belong to another choice."""


@dataclass(frozen=True)
class Setting:
    """An open setting. `depends`: column and number of the choice to which it belongs."""

    name: str
    distribution: BaseDistribution
    depends: tuple[int, int] | None

    @property
    def is_choice(self) -> bool:
        return isinstance(self.distribution, CategoricalDistribution)

    @property
    def count(self) -> int:
        """Number of possible values; 0 if it is continuous."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        assert isinstance(d, FloatDistribution | IntDistribution)
        return 0 if d.log or d.step is None else round((d.high - d.low) / d.step) + 1

    def encode(self, value: Any) -> float:
        """Encode a value; one outside the range becomes the nearest end, an unknown choice counts as absent."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return float(d.choices.index(value)) if value in d.choices else ABSENT_CHOICE
        assert isinstance(d, FloatDistribution | IntDistribution)
        low, high = (math.log(d.low), math.log(d.high)) if d.log else (d.low, d.high)
        x = math.log(value) if d.log else value
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def decode(self, number: float) -> Any:
        """Decode a number to a value."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[int(number)]
        assert isinstance(d, FloatDistribution | IntDistribution)
        x = d.low * (d.high / d.low) ** number if d.log else d.low + (d.high - d.low) * number
        if not d.log and d.step is not None:
            x = d.low + round((x - d.low) / d.step) * d.step
        x = min(max(x, d.low), d.high)
        return round(x) if isinstance(d, IntDistribution) else x


class Encoding:
    """The open settings of a recipe, one column each."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self.settings = list(_settings(recipe))
        self.is_choice = np.array([setting.is_choice for setting in self.settings], dtype=bool)

    def encode(self, params: Mapping[str, Any]) -> Rows:
        """Encode the settings of one recipe, (settings,)."""
        row = np.where(self.is_choice, ABSENT_CHOICE, ABSENT_NUMBER)
        for column, setting in enumerate(self.settings):
            if setting.name in params:
                row[column] = setting.encode(params[setting.name])
        return row

    def decode(self, row: Rows) -> dict[str, Any]:
        """Decode a row to the settings of a recipe."""
        columns = zip(self.settings, row, self._present(row[None])[0], strict=True)
        return {
            setting.name: setting.decode(float(number)) for setting, number, present in columns if present
        }

    def sample(self, count: int, rng: np.random.Generator) -> Rows:
        """Recipes drawn at random."""
        return self._without_absent(self._sample_all(count, rng))

    def mutate(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Copies of recipes in which one setting each, with those that depend on it, is drawn again."""
        present = self._present(rows)
        changed = np.where(present, rng.random(rows.shape), -1.0).argmax(axis=1)
        kept = present & (np.arange(rows.shape[1]) != changed[:, None])
        return self._without_absent(np.where(kept, rows, self._sample_all(len(rows), rng)))

    def _sample_all(self, count: int, rng: np.random.Generator) -> Rows:
        """Random rows, in which settings that a recipe does not have are filled as well."""
        rows = rng.random((count, len(self.settings)))
        for column, setting in enumerate(self.settings):
            if setting.count:
                rows[:, column] = np.floor(rows[:, column] * setting.count)
                if not setting.is_choice:
                    rows[:, column] /= max(setting.count - 1, 1)
        return rows

    def _without_absent(self, rows: Rows) -> Rows:
        """Rows in which settings that a recipe does not have are marked as absent."""
        return np.where(self._present(rows), rows, np.where(self.is_choice, ABSENT_CHOICE, ABSENT_NUMBER))

    def _present(self, rows: Rows) -> NDArray[np.bool_]:
        """True where a recipe has the setting, because it made the choice to which the setting belongs."""
        present = np.ones(rows.shape, dtype=bool)
        for column, setting in enumerate(self.settings):
            if setting.depends is not None:
                above, choice = setting.depends
                present[:, column] = present[:, above] & (rows[:, above] == choice)
        return present


def _settings(recipe: Mapping[str, Any]) -> Iterator[Setting]:
    """All open settings; a choice comes before the settings that depend on it."""
    leaves = sorted(open_leaves(recipe), key=lambda leaf: leaf[0].count("."))
    branches: dict[str, tuple[int, int]] = {}
    for column, (name, leaf) in enumerate(leaves):
        above = [branch for branch in branches if name.startswith(f"{branch}.")]
        yield Setting(name, distribution_of_leaf(leaf), branches[max(above, key=len)] if above else None)
        if isinstance(leaf, Choices) and isinstance(leaf.choices, Mapping):
            branches |= {f"{name}.{key}": (column, number) for number, key in enumerate(leaf.choices)}
