"""Encoding of a study's open settings: recipes as rows of numbers, with which a surrogate can compute."""

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
"""Numbers that stand where a recipe does not have a setting, because another choice was made above it."""


@dataclass(frozen=True)
class Setting:
    """An open leaf, and the choice above it on which it depends: the column of that, and which one."""

    name: str
    distribution: BaseDistribution
    depends: tuple[int, int] | None

    @property
    def is_choice(self) -> bool:
        return isinstance(self.distribution, CategoricalDistribution)

    @property
    def count(self) -> int:
        """The number of values; 0 for a continuum."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        assert isinstance(d, FloatDistribution | IntDistribution)
        return 0 if d.log or d.step is None else round((d.high - d.low) / d.step) + 1

    def encode(self, value: Any) -> float:
        """The number that stands for a value; one outside the space is as near as can be, or absent."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return float(d.choices.index(value)) if value in d.choices else ABSENT_CHOICE
        assert isinstance(d, FloatDistribution | IntDistribution)
        low, high = (math.log(d.low), math.log(d.high)) if d.log else (d.low, d.high)
        x = math.log(value) if d.log else value
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def decode(self, number: float) -> Any:
        """The value that a number stands for."""
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
        """The numbers of one recipe, (settings,)."""
        row = np.where(self.is_choice, ABSENT_CHOICE, ABSENT_NUMBER)
        for column, setting in enumerate(self.settings):
            if setting.name in params:
                row[column] = setting.encode(params[setting.name])
        return row

    def decode(self, row: Rows) -> dict[str, Any]:
        """The recipe of a row."""
        columns = zip(self.settings, row, self._present(row[None])[0], strict=True)
        return {
            setting.name: setting.decode(float(number)) for setting, number, present in columns if present
        }

    def sample(self, count: int, rng: np.random.Generator) -> Rows:
        """Recipes drawn at random."""
        return self._without_absent(self._sample_all(count, rng))

    def mutate(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """The same recipes, one setting of each drawn anew, with those that depend on it."""
        present = self._present(rows)
        changed = np.where(present, rng.random(rows.shape), -1.0).argmax(axis=1)
        kept = present & (np.arange(rows.shape[1]) != changed[:, None])
        return self._without_absent(np.where(kept, rows, self._sample_all(len(rows), rng)))

    def _sample_all(self, count: int, rng: np.random.Generator) -> Rows:
        """Every column at random, those too that a recipe does not have."""
        rows = rng.random((count, len(self.settings)))
        for column, setting in enumerate(self.settings):
            if setting.count:
                rows[:, column] = np.floor(rows[:, column] * setting.count)
                if not setting.is_choice:
                    rows[:, column] /= max(setting.count - 1, 1)
        return rows

    def _without_absent(self, rows: Rows) -> Rows:
        """The same with the numbers for absent settings where a recipe does not have one."""
        return np.where(self._present(rows), rows, np.where(self.is_choice, ABSENT_CHOICE, ABSENT_NUMBER))

    def _present(self, rows: Rows) -> NDArray[np.bool_]:
        """True where a recipe has the setting: the choices above it are those that it belongs to."""
        present = np.ones(rows.shape, dtype=bool)
        for column, setting in enumerate(self.settings):
            if setting.depends is not None:
                above, choice = setting.depends
                present[:, column] = present[:, above] & (rows[:, above] == choice)
        return present


def _settings(recipe: Mapping[str, Any]) -> Iterator[Setting]:
    """Every open leaf, those that others depend on before them."""
    leaves = sorted(open_leaves(recipe), key=lambda leaf: leaf[0].count("."))
    branches: dict[str, tuple[int, int]] = {}
    for column, (name, leaf) in enumerate(leaves):
        above = [branch for branch in branches if name.startswith(f"{branch}.")]
        yield Setting(name, distribution_of_leaf(leaf), branches[max(above, key=len)] if above else None)
        if isinstance(leaf, Choices) and isinstance(leaf.choices, Mapping):
            branches |= {f"{name}.{key}": (column, number) for number, key in enumerate(leaf.choices)}
