"""Costs of a training, in time and memory: of any recipe, from those of a few that were measured."""

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
from search.worker import STRIP_CROPS, ProbeConfig, ProbeResult, Scale, held_out_images

WRITES_PER_CLIMB = 8  # changes in the database: claimed, described, scored, handed back or ended
WRITES_AT_BIRTH = 6  # and one for each open setting
REPEAT_SCORES = 4  # of the images of a rung, in a training from a new seed


@dataclass(frozen=True)
class TrainingCost:
    """Seconds that the training of one recipe takes, by what they go to."""

    steps: int
    per_step: float
    per_score: float
    """The images of a rung, restored and compared."""
    at_end: float
    """The images of the final score."""
    per_climb: float
    """Building, and looking at a few images."""
    at_birth: float
    per_repeat: float
    """A training from a new seed, its steps not counted: what judges it too."""
    shares: tuple[float, ...]
    """Of its steps, where it is scored; the last is 1."""
    branch: Hashable = None
    """The choices that recipes near each other in the space have in common."""

    def steps_at(self, share: float) -> int:
        """Steps done at that share: at least one."""
        return min(max(1, round(self.steps * share)), self.steps) if share else 0

    def climb(self, low: float, high: float, steps: int | None = None) -> float:
        """From one share of the training to another; with another number of steps between, if given."""
        if steps is None:
            steps = self.steps_at(high) - self.steps_at(low)
        scores = len({self.steps_at(s) for s in self.shares if low < s <= high}) if self.steps else 0
        birth = 0.0 if low else self.at_birth
        end = self.at_end if high == 1 else 0.0
        return steps * self.per_step + scores * self.per_score + self.per_climb + birth + end


class CostModel:
    """Prediction of what trials cost here, from measurements; `teramacs`: their length where the recipe has none."""

    def __init__(
        self,
        spec: StudySpec,
        split: Split,
        measured: Sequence[ProbeResult],
        teramacs: float | None,
        writing: float = 0.0,
    ) -> None:
        """`writing`: seconds that a change in the database takes."""
        self.spec, self.teramacs, self.writing = spec, teramacs, writing
        self.results = {one.probe.number: one for one in measured}
        self.per_step = Scale([(one.probe.work, one.pace.seconds_per_step) for one in measured])
        self.bytes = Scale([(one.probe.work, one.pace.peak_bytes) for one in measured])
        self.per_megapixel = Scale(
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
        """The same for a study that differs in its time, and so in the length of trainings."""
        other = copy(self)
        other.spec, other.teramacs = spec, teramacs
        return other

    def training_cost(self, probe: ProbeConfig, branch: Hashable = None) -> TrainingCost:
        """Costs of its whole training, scored at the rungs of the ladder and evenly between."""
        config, restoring = probe.config, self.seconds_per_megapixel(probe)
        pauses = self.spec.ladder.shares()[:-1]
        evenly = (n / config.evaluations for n in range(1, config.evaluations + 1))
        scoring = restoring + self.compare_seconds
        writes_at_birth = WRITES_AT_BIRTH + len(probe.values)
        judging = REPEAT_SCORES * self.rung_megapixels + self.val_megapixels + self.judging_megapixels
        return TrainingCost(
            steps=self.steps(probe),
            per_step=self.seconds_per_step(probe),
            per_score=self.rung_megapixels * scoring,
            at_end=self.val_megapixels * scoring,
            per_climb=self.to_start + self.strip_megapixels * restoring + WRITES_PER_CLIMB * self.writing,
            at_birth=2 * self.to_build + _seconds_to_weigh(restoring) + writes_at_birth * self.writing,
            per_repeat=self.to_start + judging * scoring,
            shares=tuple(sorted({*pauses, *evenly})) if self.steps(probe) else (),
            branch=branch,
        )

    def steps(self, probe: ProbeConfig) -> int:
        """The length of its whole training."""
        if self.teramacs is None:
            return probe.config.total_steps
        return max(1, round(self.teramacs / probe.work))

    def seconds_per_step(self, probe: ProbeConfig) -> float:
        """Measured, or what recipes of like work took."""
        found = self.results.get(probe.number)
        return found.pace.seconds_per_step if found else self.per_step.at(probe.work)

    def seconds_per_megapixel(self, probe: ProbeConfig) -> float:
        """Of restoring; measured, or what recipes of like work took."""
        found = self.results.get(probe.number)
        return found.seconds_per_megapixel if found else self.per_megapixel.at(probe.work_per_pixel)

    def memory(self, probe: ProbeConfig) -> float:
        """Bytes of training it in one piece; measured, or what recipes of like work took."""
        found = self.results.get(probe.number)
        return found.pace.peak_bytes if found else self.bytes.at(probe.work)


def _megapixels(pairs: PairSet, indices: Sequence[int]) -> float:
    return sum(math.prod(pairs.size(index)) for index in indices) / 1e6


def _seconds_to_weigh(restoring: float) -> float:
    """To record time and memory of a model, as each trial does once; `restoring` is for a megapixel."""
    once = PROBE_SIDE**2 / 1e6 * restoring
    timed = min(1 + TIMED_RUNS, math.ceil(PROBE_SECONDS / max(once, 1e-6)))
    return (1 + timed) * once


def _compare_seconds(pairs: PairSet) -> float:
    """To score a megapixel that is restored already."""
    pair = pairs.whole(0)
    seconds = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        score_image(pair.degraded, pair.clean)
        seconds.append(time.perf_counter() - started)
    return median(seconds) / (math.prod(pairs.size(0)) / 1e6)


def _seconds_to_build(config: TrialConfig) -> float:
    """To make a model and count what it costs, as each trial does."""
    started = time.perf_counter()
    count_macs(config.model.build(), config.model.channels, config.crops.patch, config.crops.patch)
    return time.perf_counter() - started
