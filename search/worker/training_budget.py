"""Length of a training that fits into the time of a study, and the number of rungs for it."""

from dataclasses import dataclass

import torch

from data.sources import Split
from search.study import StudySpec
from search.trial import measure_seconds_per_step
from search.worker.probe_configs import ProbeConfigs, small_median_large, typical_speed

# Largest share of the time that may be spent on measuring the training speed.
MEASURING_SHARE = 0.03
# With a single rung, most of the time would be spent before trials are compared.
FEWEST_RUNGS = 2


@dataclass(frozen=True)
class TrainingLength:
    """Length of a whole training, where the recipe leaves it open."""

    teramacs: float
    """10^12 multiply-adds."""
    rungs: int
    """Number of rungs at which a training pauses."""


def measure_training_speed(spec: StudySpec, split: Split, device: torch.device) -> float:
    """Training speed of this device, in 10^12 multiply-adds a second.

    Measured on recipes from the whole space; in a short study on the first one alone.
    """
    return typical_speed(
        ProbeConfigs(spec, split.channels),
        lambda probe: measure_seconds_per_step(probe.config, split, device),
        MEASURING_SHARE * spec.timeout,
    )


def affordable_length(spec: StudySpec, speed: float, probes: ProbeConfigs) -> TrainingLength:
    """The training whose last stretch takes the share `finale` of the study's time at `speed`.

    The number of rungs is such that the first recipe (a median one if none is known) makes at least
    `ladder.fewest_steps` up to the lowest rung.
    """
    ladder, rungs = spec.ladder, spec.ladder.rungs
    teramacs = speed * spec.timeout * spec.finale / (1 - 1 / ladder.factor)
    first = probes.known[0] if probes.known else small_median_large(probes.drawn)["median"]
    while rungs > FEWEST_RUNGS and teramacs < ladder.fewest_steps * ladder.factor**rungs * first.work:
        rungs -= 1
    return TrainingLength(teramacs, rungs)
