"""How long a training can be in the time of a study, and how many rungs of the ladder that is worth."""

from dataclasses import dataclass

import torch

from data.sources import Split
from search.study import StudySpec
from search.trial import measure_seconds_per_step
from search.worker.probe_configs import ProbeConfigs, small_median_large, typical_speed

# Most of the time that goes to measuring how fast this device trains.
MEASURING_SHARE = 0.03
# With one, most of the time would go before anything is compared.
FEWEST_RUNGS = 2


@dataclass(frozen=True)
class TrainingLength:
    """A whole training, where the recipe leaves its length to the time of the study."""

    teramacs: float
    """10^12 multiply-adds."""
    rungs: int
    """Pauses on the way that are worth it."""


def measure_training_speed(spec: StudySpec, split: Split, device: torch.device) -> float:
    """10^12 multiply-adds that this device does in a second of training.

    From recipes from all over the space, or, for a short study, from the first.
    """
    return typical_speed(
        ProbeConfigs(spec, split.channels),
        lambda probe: measure_seconds_per_step(probe.config, split, device),
        MEASURING_SHARE * spec.timeout,
    )


def affordable_length(spec: StudySpec, speed: float, probes: ProbeConfigs) -> TrainingLength:
    """A training whose last stretch takes the time of the finale at `speed`, and the rungs that are worth it.

    The first recipe, or a median one where none is known, makes `ladder.fewest_steps` up to the lowest.
    """
    ladder, rungs = spec.ladder, spec.ladder.rungs
    teramacs = speed * spec.timeout * spec.finale / (1 - 1 / ladder.factor)
    first = probes.known[0] if probes.known else small_median_large(probes.drawn)["median"]
    while rungs > FEWEST_RUNGS and teramacs < ladder.fewest_steps * ladder.factor**rungs * first.work:
        rungs -= 1
    return TrainingLength(teramacs, rungs)
