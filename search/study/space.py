"""The open leaves of a study's recipe, and how a trial fills them in.

A recipe is a nested table with the shape of a trial config. Two kinds of leaf
are open; everything else is fixed:

    { low = 1e-5, high = 1e-3, log = true }      a range
    { choices = [24, 32, 48] }                   a pick among plain values
    { choices = { small = [1, 2], ... } }        a pick among named values or tables
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search.errors import closest

Plain = bool | int | float | str


class Suggester(Protocol):
    """The part of an Optuna trial that sampling needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: list[Plain]) -> Any: ...


class SpaceError(ValueError):
    """A range or choice in the study file that cannot be searched; starts with its dotted path."""


class Range(BaseModel):
    """An interval, both ends included. Whole numbers at both ends make it an integer range."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range needs low > 0 and no step")
        if self.whole and self.step is not None and not isinstance(self.step, int):
            raise ValueError(f"a range of whole numbers needs a whole step, not {self.step}")
        if self.step is not None and not _divides(self.step, self.high - self.low):
            raise ValueError(f"step ({self.step}) must divide high - low ({self.high - self.low:g})")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def fill(self, name: str, trial: Suggester) -> float | int:
        if self.whole:
            return trial.suggest_int(
                name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(name, float(self.low), float(self.high), step=self.step, log=self.log)

    def corners(self, name: str) -> list[Any]:
        return [self.low, self.high]


class Choices(BaseModel):
    """A pick. Named choices may hold open leaves of their own, sampled only when picked."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    choices: list[Any] | dict[str, Any]

    @model_validator(mode="after")
    def _are_distinct_and_plain(self) -> "Choices":
        if not self.choices:
            raise ValueError("choices is empty; write at least one")
        if isinstance(self.choices, list):
            for choice in self.choices:
                if not isinstance(choice, Plain):
                    raise ValueError(
                        f"{choice} needs a name, because the database stores it: choices = {{ small = {choice}, ... }}"
                    )
            if len({(type(c), c) for c in self.choices}) < len(self.choices):
                raise ValueError(f"choices has a value twice: {self.choices}")
        return self

    @property
    def names(self) -> list[Plain]:
        """The values that the database stores: the plain values, or the names."""
        return list(self.choices)

    def fill(self, name: str, trial: Suggester) -> Any:
        if isinstance(self.choices, list):
            return trial.suggest_categorical(name, self.choices)
        picked = str(trial.suggest_categorical(name, list(self.choices)))
        return fill_leaves(self.choices[picked], trial, f"{name}.{picked}")

    def corners(self, name: str) -> list[Any]:
        if isinstance(self.choices, list):
            return self.choices
        return [c for key, choice in self.choices.items() for c in corner_recipes(choice, f"{name}.{key}")]


def as_open_leaf(node: Any, name: str) -> Range | Choices | None:
    """Read `node` as an open leaf; None for a plain table or a fixed value. Raises `SpaceError`."""
    if not isinstance(node, Mapping):
        return None
    form = Range if {"low", "high"} & node.keys() else Choices if "choices" in node else None
    if form is None:
        return None
    try:
        return form.model_validate(node)
    except ValidationError as error:
        raise SpaceError(f"recipe.{name}: {_explain(error, form)}") from None


def fill_leaves(node: Any, trial: Suggester, name: str = "") -> Any:
    """Close every open leaf with a value from `trial`, named by its dotted path."""
    if leaf := as_open_leaf(node, name):
        return leaf.fill(name, trial)
    if isinstance(node, Mapping):
        return {key: fill_leaves(child, trial, _join(name, key)) for key, child in node.items()}
    return node


def with_replacements(node: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """`node` with parts of it replaced: plain tables key by key, open leaves and tables with a `kind` whole."""
    result = dict(node)
    for key, value in fixed.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and _merge(before, value):
            value = with_replacements(before, value)
        result[key] = value
    return result


def _merge(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return "kind" not in value and as_open_leaf(before, "") is None and as_open_leaf(value, "") is None


def open_leaves(node: Any, name: str = "") -> Iterator[tuple[str, Range | Choices]]:
    """Every open leaf of the recipe, those inside named choices included, with its dotted path."""
    leaf = as_open_leaf(node, name)
    if leaf:
        yield name, leaf
    if isinstance(leaf, Choices) and isinstance(leaf.choices, Mapping):
        for key, choice in leaf.choices.items():
            yield from open_leaves(choice, f"{name}.{key}")
    elif leaf is None and isinstance(node, Mapping):
        for key, child in node.items():
            yield from open_leaves(child, _join(name, key))


def corner_recipes(node: Any, name: str = "") -> list[Any]:
    """Closed recipes that together reach both ends of every range and every choice, one after another."""
    if leaf := as_open_leaf(node, name):
        return leaf.corners(name)
    if isinstance(node, Mapping):
        columns = {key: corner_recipes(child, _join(name, key)) for key, child in node.items()}
        rows = max(map(len, columns.values()), default=1)
        return [
            {key: column[min(row, len(column) - 1)] for key, column in columns.items()} for row in range(rows)
        ]
    return [node]


def leaf_combinations(node: Any, name: str, most: int) -> Iterator[Any]:
    """Every combination of range ends and choices below `node`, up to `most` of them."""
    return itertools.islice(_combinations(node, name), most)


def _combinations(node: Any, name: str) -> Iterator[Any]:
    leaf = as_open_leaf(node, name)
    if isinstance(leaf, Choices) and isinstance(leaf.choices, Mapping):
        for key, choice in leaf.choices.items():
            yield from _combinations(choice, f"{name}.{key}")
    elif leaf:
        yield from leaf.corners(name)
    elif isinstance(node, Mapping):
        columns = [list(_combinations(child, _join(name, key))) for key, child in node.items()]
        for row in itertools.product(*columns):
            yield dict(zip(node, row, strict=True))
    else:
        yield node


class RandomSuggester:
    """Uniform draws without Optuna: to try a space out before any trial exists."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        if log:
            return min(max(math.exp(self.random.uniform(math.log(low), math.log(high))), low), high)
        if step is not None:
            return low + step * self.random.randint(0, round((high - low) / step))
        return self.random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self.random.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Plain:
        return self.random.choice(choices)


class KnownSuggester:
    """Values given by hand; others are drawn at random. `SpaceError` for a value outside its leaf."""

    def __init__(self, values: Mapping[str, Plain]) -> None:
        self.values = values
        self.seen: list[str] = []
        self.random = RandomSuggester(0)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.seen.append(name)
        if name not in self.values:
            return self.random.suggest_float(name, low, high, step=step, log=log)
        value = self.values[name]
        if isinstance(value, bool | str) or not low <= value <= high:
            raise SpaceError(f"{name}: {value!r} is outside {low} to {high}")
        if step is not None and not _divides(step, value - low):
            raise SpaceError(f"{name}: {value!r} is not on the grid {low}, {low + step}, ... {high}")
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.seen.append(name)
        if name not in self.values:
            return self.random.suggest_int(name, low, high, step=step, log=log)
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value not in range(low, high + 1, step):
            raise SpaceError(
                f"{name}: {value!r} is not a whole number from {low} to {high} in steps of {step}"
            )
        return value

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Plain:
        self.seen.append(name)
        if name not in self.values:
            return self.random.suggest_categorical(name, choices)
        value = self.values[name]
        if value not in choices:
            known = ", ".join(map(str, choices))
            raise SpaceError(
                f"{name}: {value!r} is not among {known}{closest(str(value), list(map(str, choices)))}"
            )
        return value


def _divides(step: float, length: float) -> bool:
    return math.isclose(length / step, round(length / step), rel_tol=1e-9, abs_tol=1e-9)


def _explain(error: ValidationError, form: type[BaseModel]) -> str:
    """The fault of an open leaf, in words."""
    parts = []
    for problem in error.errors():
        key = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = list(form.model_fields)
            message = f"unknown key {key}; allowed are {', '.join(known)}{closest(key, known)}"
        elif problem["type"] == "missing":
            message = f"{key} is missing"
        elif key:
            message = f"{key}: {message}"
        if message not in parts:
            parts.append(message)
    return "; ".join(parts)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
