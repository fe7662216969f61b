"""Recipes from the whole search space for measuring how fast this device trains and restores."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch

from data.sources import Split
from search.inference import PROBE_SIDE, Precision, ms_per_megapixel
from search.study import (
    ANY_LENGTH,
    KnownSuggester,
    Plain,
    RandomSuggester,
    StudySpec,
    Suggester,
    close_recipe,
    fill_leaves,
    with_replacements,
)
from search.trial import Pace, TrialConfig, measure_pace

DRAWS = 32
QUANTILES = {"small": 0.1, "median": 0.5, "large": 0.9}
PROBE_SECONDS = 0.3
_SEED = 0
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class ProbeConfig:
    """A recipe of the search space: `name` if it is a known one, `values` of its open settings."""

    config: TrialConfig
    number: int = 0
    """Index among the recipes of the study; known recipes come first."""
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def work(self) -> float:
        """10^12 multiply-adds of a training step."""
        return self.config.teramacs_per_step

    @property
    def work_per_pixel(self) -> float:
        """10^12 multiply-adds of a training step for each pixel: proportional to the work of restoring."""
        crops = self.config.crops
        return self.work / (crops.batch * crops.patch**2)


class _RecordingSuggester:
    """Wraps another suggester and keeps the values that it suggests."""

    def __init__(self, inner: Suggester) -> None:
        self.inner = inner
        self.values: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return self._kept(name, self.inner.suggest_float(name, low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return self._kept(name, self.inner.suggest_int(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Any:
        return self._kept(name, self.inner.suggest_categorical(name, choices))

    def _kept(self, name: str, value: Drawn) -> Drawn:
        self.values[name] = value
        return value


class ProbeConfigs:
    """Known and random recipes of a study, the same ones in every process, made on first use.

    Where the study leaves the length of a training open, theirs is arbitrary.
    """

    def __init__(self, spec: StudySpec, channels: int) -> None:
        self.spec, self.channels = spec, channels

    @cached_property
    def known(self) -> list[ProbeConfig]:
        return [
            self._closed(
                number,
                with_replacements(self.spec.recipe, one.recipe),
                KnownSuggester(one.values),
                one.name,
            )
            for number, one in enumerate(self.spec.first)
        ]

    @cached_property
    def drawn(self) -> list[ProbeConfig]:
        suggester = RandomSuggester(_SEED)
        first = len(self.spec.first)
        return [self._closed(first + n, self.spec.recipe, suggester) for n in range(DRAWS)]

    @property
    def all(self) -> list[ProbeConfig]:
        return self.known + self.drawn

    def _closed(
        self, number: int, recipe: Mapping[str, Any], suggester: Suggester, name: str = ""
    ) -> ProbeConfig:
        recording = _RecordingSuggester(suggester)
        tree = fill_leaves(recipe, recording)
        config = close_recipe({**ANY_LENGTH, **tree, "model": {"channels": self.channels, **tree["model"]}})
        return ProbeConfig(config, number, name, recording.values)


def small_median_large(
    probes: Sequence[ProbeConfig], size: Callable[[ProbeConfig], float] = lambda probe: probe.work
) -> dict[str, ProbeConfig]:
    """A small, a median and a large recipe, by `size`."""
    ordered = sorted(probes, key=size)
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in QUANTILES.items()}


def typical_speed(
    probes: ProbeConfigs, seconds_per_step: Callable[[ProbeConfig], float], allowed: float
) -> float:
    """Training speed of this device, in 10^12 multiply-adds a second.

    The median over a small, a median and a large recipe; the speed of the first recipe alone if it indicates
    that measuring the three would take more than `allowed` seconds.
    """
    started = time.monotonic()
    first = (probes.known or probes.drawn)[0]
    speed = first.work / seconds_per_step(first)
    took = time.monotonic() - started
    if took * (1 + len(QUANTILES)) > allowed:
        return speed
    three = small_median_large(probes.all).values()
    expected = took * sum(max(1.0, probe.work / first.work) for probe in three)
    if time.monotonic() - started + expected > allowed:
        return speed
    return median(probe.work / seconds_per_step(probe) for probe in three)


@dataclass(frozen=True)
class ProbeResult:
    """Measured speed and memory of one recipe on this device."""

    probe: ProbeConfig
    pace: Pace
    seconds_per_megapixel: float
    """Restoring whole images."""


def measure_probe(probe: ProbeConfig, split: Split, device: torch.device) -> ProbeResult:
    """Train a few steps and restore a part of an image. Raises the errors of training."""
    config = probe.config
    found = measure_pace(config, split, device) if config.total_steps else Pace(0.0, 0.0, 0)
    image = split.val.whole(0).degraded[:, :PROBE_SIDE, :PROBE_SIDE]
    model = config.model.build().to(device).eval()
    precision = Precision(config.precision, device, tf32=True)
    ms = ms_per_megapixel(model, image, precision, PROBE_SECONDS)
    return ProbeResult(probe, found, ms / 1e3)


class InterpolatedCost:
    """A cost as a function of work: interpolated between measurements, proportional beyond the largest one."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self.points = sorted(points)

    def at(self, work: float) -> float:
        """The cost for this work, interpolated between logarithms; the median of all if work is zero."""
        works = [at for at, _ in self.points]
        values = [max(value, 1e-12) for _, value in self.points]
        if work <= 0 or works[0] <= 0:
            return median(values)
        if work > works[-1]:
            return values[-1] * work / works[-1]
        return float(np.exp(np.interp(np.log(work), np.log(works), np.log(values))))
