"""Recipes from all over a study's space to probe a device with: their work, and how long they take here."""

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
    """A recipe of the space; `name` is that of a known one, `values` those of the open settings."""

    config: TrialConfig
    number: int = 0
    """Tells it from the others of the study: known ones are counted first."""
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


class _Recording:
    """Passes on what another suggester draws, and keeps it."""

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
    """Recipes to probe with: those that a study names, and random ones; the same in every process.

    They are closed when they are first asked for.
    Their length is that of the study's recipe, or any where that leaves it open.
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
        recording = _Recording(suggester)
        tree = fill_leaves(recipe, recording)
        config = close_recipe({**ANY_LENGTH, **tree, "model": {"channels": self.channels, **tree["model"]}})
        return ProbeConfig(config, number, name, recording.values)


def small_median_large(
    probes: Sequence[ProbeConfig], size: Callable[[ProbeConfig], float] = lambda probe: probe.work
) -> dict[str, ProbeConfig]:
    """A small, a median and a large one of them, by the work of a step unless told otherwise."""
    ordered = sorted(probes, key=size)
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in QUANTILES.items()}


def typical_speed(
    probes: ProbeConfigs, seconds_per_step: Callable[[ProbeConfig], float], allowed: float
) -> float:
    """10^12 multiply-adds that this device does in a second of training.

    The median over a small, a median and a large recipe where measuring them takes no more than `allowed`
    seconds, as far as the first recipe tells; else the speed of that one, known or random.
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
    """Times and memory of one recipe on this device."""

    probe: ProbeConfig
    pace: Pace
    seconds_per_megapixel: float
    """Restoring whole images."""


def measure_probe(probe: ProbeConfig, split: Split, device: torch.device) -> ProbeResult:
    """Train a few steps and restore a part of an image. Raises what training raises."""
    config = probe.config
    found = measure_pace(config, split, device) if config.total_steps else Pace(0.0, 0.0, 0)
    image = split.val.whole(0).degraded[:, :PROBE_SIDE, :PROBE_SIDE]
    model = config.model.build().to(device).eval()
    precision = Precision(config.precision, device, tf32=True)
    ms = ms_per_megapixel(model, image, precision, PROBE_SECONDS)
    return ProbeResult(probe, found, ms / 1e3)


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
