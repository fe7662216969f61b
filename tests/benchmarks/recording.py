"""Recorded learning curves (tests/benchmarks/curves.py) as scores and costs for a simulated search."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.trial.sparsity import DenseConfig, DSDConfig
from tests.benchmarks.curves import EVALUATIONS, FINAL, SHARES, Row

FULL = EVALUATIONS
"""The end of a training. All shares of it are counted in sixteenths here."""
SCORED_EVERY = FULL // 8
"""The shipped studies score a trial at each eighth, whatever else asks for a score."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A configuration, trained to its full length once. After a divergence its scores are nan."""

    settings: dict[str, Any]
    scores: Floats
    """At each sixteenth, in dB: on the few pixels of a rung."""
    final: float
    """In dB: on all validation pixels of a trial."""
    training: float
    """CPU seconds of all steps."""
    evaluation: float
    """CPU seconds of one score."""

    def seconds(self, start: int, end: int) -> float:
        """Cost of training from sixteenth `start` to `end`, scores on the way and at the end included.

        The last score of a whole training, on more pixels, counts as two.
        """
        scored = {k for k in range(start + 1, end + 1) if k % SCORED_EVERY == 0} | {end}
        return self.training * (end - start) / FULL + self.evaluation * (len(scored) + (end == FULL))

    def at_rung(self, sixteenth: int) -> float:
        """The score that stands for a trial at a rung: under a mask the best before it; nan once diverged."""
        here, settled = self.scores[sixteenth - 1], self.settled[:sixteenth]
        if np.isnan(here) or settled[-1] or not settled.any():
            return float(here)
        return float(self.scores[:sixteenth][settled].max())

    @property
    def settled(self) -> NDArray[np.bool_]:
        """For each sixteenth, whether no weights are held at zero there."""
        phases = (DSDConfig() if self.settings.get("sparsity") == "dsd" else DenseConfig()).phases(FULL * 100)
        steps = 100 * np.arange(1, FULL + 1)
        masked = [(phase.first < steps) & (steps <= phase.last) & (phase.sparsity > 0) for phase in phases]
        return np.logical_not(np.any(masked, axis=0))


def curves(rows: Sequence[Row], free_scores: bool = False) -> list[Curve]:
    """The curves of the rows of a CSV; with `free_scores`, scores take no time."""
    return [
        Curve(
            settings=json.loads(row["settings"]),
            scores=np.array([number(row[share]) for share in SHARES]),
            final=number(row[FINAL]),
            training=number(row["steps"]) * number(row["step_seconds"]),
            evaluation=0.0 if free_scores else number(row["evaluation_seconds"]),
        )
        for row in rows
    ]


def number(cell: str) -> float:
    return float(cell or "nan")


def unit(recorded: Sequence[Curve]) -> float:
    """Seconds of a whole training, the mean over all configurations."""
    return float(np.mean([curve.seconds(0, FULL) for curve in recorded]))
