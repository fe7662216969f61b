"""Rankings of restorers: mean scores with intervals, and the differences of every two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from search.inference import ImageScore

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0
# Of fewer groups, all favour the same of two equals in more than 5 % of cases (2 / 2^5 = 6 %).
ENOUGH_GROUPS = 6
FILTER_KIND = "classical"


@dataclass(frozen=True)
class Effort:
    """Origin and costs of a restorer."""

    kind: str
    trial: int
    trials: int
    training_seconds: float
    parameters: int
    gmacs_at_256: float
    ms_per_megapixel: float


@dataclass(frozen=True)
class Entry:
    """A restorer and its scores, one per image. Without effort: the degraded images themselves."""

    name: str
    scores: Sequence[ImageScore]
    effort: Effort | None = None

    @property
    def psnr_db(self) -> NDArray[np.float64]:
        return np.array([score.psnr_db for score in self.scores])


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its interval; both ends are nan where there is none."""

    mean: float
    low: float
    high: float

    @property
    def one_sided(self) -> bool:
        """True if the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """An entry of the ranking. PSNR, SSIM and MAE are means over images."""

    entry: Entry
    psnr_db: Estimate
    gain_db: Estimate | None
    """Over the unchanged images."""
    filter_gain_db: Estimate | None
    """Over the best classical filter."""
    behind_db: Estimate | None
    """Difference to the best restorer."""
    ssim: float
    rmse_255: float
    """Root of the mean over images of the squared error, in 8-bit codes."""
    mae_255: float
    """In 8-bit codes; three times this is 765 x MAE in units of the full range."""


@dataclass(frozen=True)
class Difference:
    """The lead of one entry over another in PSNR."""

    better: str
    worse: str
    gain_db: Estimate


@dataclass(frozen=True)
class Ranking:
    """Rows from best to worst, and the difference of every two of them."""

    rows: list[Row]
    differences: list[Difference]
    images: int
    groups: int
    filter: str | None
    """Name of the best classical filter."""

    @property
    def has_intervals(self) -> bool:
        return self.groups > 1

    @property
    def conclusive(self) -> bool:
        """True if there are enough groups to call a difference significant."""
        return self.groups >= ENOUGH_GROUPS


def rank_entries(entries: Sequence[Entry], groups: Sequence[str]) -> Ranking:
    """Order entries by PSNR. `groups` has the group of each image; exactly one entry has no effort.

    Differences are paired: taken image by image, then resampled.
    """
    ordered = sorted(entries, key=lambda entry: (-fmean(entry.psnr_db), entry.name))
    unchanged = next(entry for entry in ordered if entry.effort is None)
    best = next(entry for entry in ordered if entry.effort)
    filters = [entry for entry in ordered if entry.effort and entry.effort.kind == FILTER_KIND]
    number = np.unique(groups, return_inverse=True)[1]

    def gain(entry: Entry, over: Entry | None) -> Estimate | None:
        return None if over is None or over is entry else bootstrap_mean(entry.psnr_db - over.psnr_db, number)

    rows = [
        Row(
            entry=entry,
            psnr_db=bootstrap_mean(entry.psnr_db, number),
            gain_db=gain(entry, unchanged),
            filter_gain_db=gain(entry, filters[0] if filters else None),
            behind_db=gain(entry, best),
            ssim=fmean(score.ssim for score in entry.scores),
            rmse_255=_rmse_255(entry),
            mae_255=255 * fmean(score.mae for score in entry.scores),
        )
        for entry in ordered
    ]
    return Ranking(
        rows=rows,
        differences=[
            Difference(better.name, worse.name, bootstrap_mean(better.psnr_db - worse.psnr_db, number))
            for better, worse in combinations(ordered, 2)
        ],
        images=len(groups),
        groups=int(number.max()) + 1,
        filter=filters[0].name if filters else None,
    )


def bootstrap_mean(values: ArrayLike, groups: ArrayLike) -> Estimate:
    """The mean of `values` and its bootstrap interval; `groups` numbers the group of each value from 0.

    Whole groups are drawn (cluster bootstrap, percentile method), because images of one group are
    not independent. No interval for a single group. The same groups give the same draws, whatever the values.
    """
    sums = np.bincount(groups, weights=values)
    counts = np.bincount(groups)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Estimate(mean, math.nan, math.nan)
    interval = bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=1 + 10_000_000 // len(sums),  # bounds the memory
        rng=SEED,
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))


def _rmse_255(entry: Entry) -> float:
    """From PSNR: mean squared error = 255^2 / 10^(PSNR / 10)."""
    return 255 * math.sqrt(float(np.mean(10 ** (-entry.psnr_db / 10))))
