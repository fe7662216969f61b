"""Recipes from all over a study's space: how much work they are, and, measured, how long they take here."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch

from data import Split
from search import space
from search.limits import PROBE_SIDE, ms_per_megapixel
from search.speed import Pace, pace
from search.study import ANY_LENGTH, StudySpec, close
from search.trial.config import TrialConfig
from search.trial.precision import Precision

DRAWS = 32
QUANTILES = {"small": 0.1, "median": 0.5, "large": 0.9}
PROBE_SECONDS = 0.3
_SEED = 0
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Sample:
    """A recipe of the space; `name` is that of a known one, `values` those of the open settings."""

    config: TrialConfig
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def work(self) -> float:
        """10^12 multiply-adds of a training step."""
        return self.config.teramacs_per_step

    @property
    def work_per_pixel(self) -> float:
        """The same for one pixel: in proportion to what restoring takes."""
        crops = self.config.crops
        return self.work / (crops.batch * crops.patch**2)


class _Noting:
    """Passes on what another suggester draws, and keeps it."""

    def __init__(self, inner: space.Suggester) -> None:
        self.inner = inner
        self.values: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return self._kept(name, self.inner.suggest_float(name, low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self._kept(name, self.inner.suggest_int(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: list[space.Plain]) -> Any:
        return self._kept(name, self.inner.suggest_categorical(name, choices))

    def _kept(self, name: str, value: Drawn) -> Drawn:
        self.values[name] = value
        return value


class Recipes:
    """The known recipes of a study, and random ones, always the same; closed when they are first asked for.

    Their length is that of the study's recipe, or any where that leaves it open.
    """

    def __init__(self, spec: StudySpec, channels: int) -> None:
        self.spec, self.channels = spec, channels

    @cached_property
    def known(self) -> list[Sample]:
        return [
            self._closed(
                space.replaced(self.spec.recipe, one.recipe), space.KnownSuggester(one.values), one.name
            )
            for one in self.spec.first
        ]

    @cached_property
    def drawn(self) -> list[Sample]:
        suggester = space.RandomSuggester(_SEED)
        return [self._closed(self.spec.recipe, suggester) for _ in range(DRAWS)]

    def _closed(self, recipe: Mapping[str, Any], suggester: space.Suggester, name: str = "") -> Sample:
        noting = _Noting(suggester)
        tree = space.fill(recipe, noting)
        config = close({**ANY_LENGTH, **tree, "model": {"channels": self.channels, **tree["model"]}})
        return Sample(config, name, noting.values)


def sizes(
    samples: Sequence[Sample], size: Callable[[Sample], float] = lambda sample: sample.work
) -> dict[str, Sample]:
    """A small, a median and a large one of them, by the work of a step unless told otherwise."""
    ordered = sorted(samples, key=size)
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in QUANTILES.items()}


def branches(samples: Iterable[Sample]) -> dict[int, tuple[tuple[str, Any], ...]]:
    """By the id of each: its values of the settings that have settings of their own below them."""
    samples = list(samples)
    names = {name for sample in samples for name in sample.values}
    forks = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    return {
        id(sample): tuple((name, value) for name, value in sample.values.items() if name in forks)
        for sample in samples
    }


def typical_speed(
    recipes: Recipes, seconds_per_step: Callable[[TrialConfig], float], allowed: float
) -> float:
    """10^12 multiply-adds that this device does in a second of training.

    The median over a small, a median and a large recipe where measuring them takes no more than `allowed`
    seconds, as far as the first recipe foretells; else the speed of that one, known or random.
    """
    started = time.monotonic()
    first = (recipes.known or recipes.drawn)[0]
    speed = first.work / seconds_per_step(first.config)
    took = time.monotonic() - started
    if took * (1 + len(QUANTILES)) > allowed:
        return speed
    three = sizes(recipes.known + recipes.drawn).values()
    expected = took * sum(max(1.0, sample.work / first.work) for sample in three)
    if time.monotonic() - started + expected > allowed:
        return speed
    return median(sample.work / seconds_per_step(sample.config) for sample in three)


@dataclass(frozen=True)
class Measured:
    """What one sample takes on this device."""

    sample: Sample
    pace: Pace
    seconds_per_megapixel: float
    """Restoring whole images."""


def measure(sample: Sample, split: Split, device: torch.device) -> Measured:
    """Train a few steps and restore a part of an image. Raises what training raises."""
    config = sample.config
    found = pace(config, split, device) if config.total_steps else Pace(0.0, 0.0, 0)
    image = split.val.whole(0).degraded[:, :PROBE_SIDE, :PROBE_SIDE]
    model = config.model.build().to(device).eval()
    precision = Precision(config.precision, device, tf32=True)
    ms = ms_per_megapixel(model, image, precision, PROBE_SECONDS)
    return Measured(sample, found, ms / 1e3)


class Scale:
    """A quantity for work that was not measured: between its measured neighbours, in proportion beyond the largest."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self.points = sorted(points)

    def at(self, work: float) -> float:
        """Interpolated between logarithms; the median of all where there is no work to tell them apart."""
        works = [at for at, _ in self.points]
        values = [max(value, 1e-12) for _, value in self.points]
        if work <= 0 or works[0] <= 0:
            return median(values)
        if work > works[-1]:
            return values[-1] * work / works[-1]
        return float(np.exp(np.interp(np.log(work), np.log(works), np.log(values))))
