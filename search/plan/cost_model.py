"""Cost model: time and memory of training any recipe, predicted from a few measured ones."""

import math
import time
from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import dataclass
from statistics import median
from typing import Self

from data.sources import PairSet, Split
from models import count_macs
from search.inference import PROBE_SECONDS, PROBE_SIDE, TIMED_RUNS, score_image
from search.study import StudySpec
from search.trial import TrialConfig
from search.worker import STRIP_CROPS, InterpolatedCost, ProbeConfig, ProbeResult, held_out_images

WRITES_PER_START = 8  # database writes of each start or continuation: claim, facts, score, release or end
WRITES_PER_NEW_TRIAL = 6  # plus one for each open setting
REPEAT_SCORES = 4  # scorings of a rung's images in a repeat


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of training one recipe, by cause."""

    steps: int
    per_step: float
    per_score: float
    """Scoring the images of a rung."""
    at_end: float
    """Scoring the images of the final score."""
    per_start: float
    """Each start or continuation: building the model, drawing the sample strip, database writes."""
    first_start: float
    """Additional time of the first start: measuring the model, database writes."""
    per_repeat: float
    """A repeat without its steps, scoring included."""
    shares: tuple[float, ...]
    """Shares of its steps at which it is scored; the last is 1."""
    branch: Hashable = None
    """Its values of the settings that have settings of their own."""

    def steps_at(self, share: float) -> int:
        """Steps done at a share of the training: at least one, 0 for 0."""
        return min(max(1, round(self.steps * share)), self.steps) if share else 0

    def seconds_between(self, low: float, high: float, steps: int | None = None) -> float:
        """Time from one share of the training to another; `steps` replaces the number of steps between them."""
        if steps is None:
            steps = self.steps_at(high) - self.steps_at(low)
        scores = len({self.steps_at(s) for s in self.shares if low < s <= high}) if self.steps else 0
        start = 0.0 if low else self.first_start
        end = self.at_end if high == 1 else 0.0
        return steps * self.per_step + scores * self.per_score + self.per_start + start + end


class CostModel:
    """Predicts the costs of trials on this device. `teramacs` is their length where the recipe leaves it open."""

    def __init__(
        self,
        spec: StudySpec,
        split: Split,
        measured: Sequence[ProbeResult],
        teramacs: float | None,
        seconds_per_write: float = 0.0,
    ) -> None:
        """`seconds_per_write` is the time of a database write."""
        self.spec, self.teramacs, self.seconds_per_write = spec, teramacs, seconds_per_write
        self.results = {one.probe.number: one for one in measured}
        self.per_step = InterpolatedCost([(one.probe.work, one.pace.seconds_per_step) for one in measured])
        self.bytes = InterpolatedCost([(one.probe.work, one.pace.peak_bytes) for one in measured])
        self.per_megapixel = InterpolatedCost(
            [(one.probe.work_per_pixel, one.seconds_per_megapixel) for one in measured]
        )
        self.to_start = median(one.pace.seconds_to_start for one in measured)
        config = measured[0].probe.config
        self.to_build = _seconds_to_build(config)
        val = split.val
        self.rung_megapixels = _megapixels(val, val.representative(config.rung_megapixels))
        self.val_megapixels = _megapixels(val, val.representative(config.val_megapixels))
        strip = sorted({n * len(val) // STRIP_CROPS for n in range(STRIP_CROPS)})
        self.strip_megapixels = _megapixels(val, strip)
        self.judging_megapixels = _megapixels(val, held_out_images(split, config)[0])
        self.compare_seconds = _compare_seconds(val)

    def of(self, spec: StudySpec, teramacs: float | None) -> Self:
        """A copy for a study with another time, and so another length of trainings."""
        other = copy(self)
        other.spec, other.teramacs = spec, teramacs
        return other

    def training_cost(self, probe: ProbeConfig, branch: Hashable = None) -> TrainingCost:
        """Costs of a recipe's whole training, which is scored at the rungs and at even distances."""
        config, restoring = probe.config, self.seconds_per_megapixel(probe)
        pauses = self.spec.ladder.shares()[:-1]
        evenly = (n / config.evaluations for n in range(1, config.evaluations + 1))
        scoring = restoring + self.compare_seconds
        writes_per_new_trial = WRITES_PER_NEW_TRIAL + len(probe.values)
        judging = REPEAT_SCORES * self.rung_megapixels + self.val_megapixels + self.judging_megapixels
        return TrainingCost(
            steps=self.steps(probe),
            per_step=self.seconds_per_step(probe),
            per_score=self.rung_megapixels * scoring,
            at_end=self.val_megapixels * scoring,
            per_start=self.to_start
            + self.strip_megapixels * restoring
            + WRITES_PER_START * self.seconds_per_write,
            first_start=2 * self.to_build
            + _seconds_to_measure_model(restoring)
            + writes_per_new_trial * self.seconds_per_write,
            per_repeat=self.to_start + judging * scoring,
            shares=tuple(sorted({*pauses, *evenly})) if self.steps(probe) else (),
            branch=branch,
        )

    def steps(self, probe: ProbeConfig) -> int:
        """Steps of a recipe's whole training."""
        if self.teramacs is None:
            return probe.config.total_steps
        return max(1, round(self.teramacs / probe.work))

    def seconds_per_step(self, probe: ProbeConfig) -> float:
        """Time of a training step: measured, or interpolated by work."""
        found = self.results.get(probe.number)
        return found.pace.seconds_per_step if found else self.per_step.at(probe.work)

    def seconds_per_megapixel(self, probe: ProbeConfig) -> float:
        """Time of restoring: measured, or interpolated by work."""
        found = self.results.get(probe.number)
        return found.seconds_per_megapixel if found else self.per_megapixel.at(probe.work_per_pixel)

    def memory(self, probe: ProbeConfig) -> float:
        """Bytes for training with undivided batches: measured, or interpolated by work."""
        found = self.results.get(probe.number)
        return found.pace.peak_bytes if found else self.bytes.at(probe.work)


def _megapixels(pairs: PairSet, indices: Sequence[int]) -> float:
    return sum(math.prod(pairs.size(index)) for index in indices) / 1e6


def _seconds_to_measure_model(restoring: float) -> float:
    """Time of measuring a model, as each trial does once; `restoring` is the time for a megapixel."""
    once = PROBE_SIDE**2 / 1e6 * restoring
    timed = min(1 + TIMED_RUNS, math.ceil(PROBE_SECONDS / max(once, 1e-6)))
    return (1 + timed) * once


def _compare_seconds(pairs: PairSet) -> float:
    """Time of scoring a restored megapixel."""
    pair = pairs.whole(0)
    seconds = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        score_image(pair.degraded, pair.clean)
        seconds.append(time.perf_counter() - started)
    return median(seconds) / (math.prod(pairs.size(0)) / 1e6)


def _seconds_to_build(config: TrialConfig) -> float:
    """Time of building a model and counting its operations, as each trial does."""
    started = time.perf_counter()
    count_macs(config.model.build(), config.model.channels, config.crops.patch, config.crops.patch)
    return time.perf_counter() - started
