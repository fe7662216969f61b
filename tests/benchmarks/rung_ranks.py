"""Correlation between the rank of a trial at a rung and its final rank, by schedule.

    python -m tests.benchmarks.rung_ranks CONSTANT.csv [COSINE.csv]

Reads learning curves that tests/benchmarks/curves.py has recorded: of a constant rate with a cooldown and, to
compare, of the same configurations with a cosine. Final scores are those of a trial: its best rung, over all pairs of
`val_megapixels`; at a rung few pixels are scored. Intervals hold 95 % of bootstrap samples of the configurations.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tests.benchmarks.curves import EVALUATIONS, FINAL, SHARES, Row, read

RUNGS = [SHARES[sixteenth - 1] for sixteenth in (1, 2, 4, 8, 12, EVALUATIONS)]
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "constant", type=Path, metavar="CONSTANT.csv", help="with a constant rate and cooldown"
    )
    parser.add_argument("cosine", type=Path, nargs="?", metavar="COSINE.csv", help="with a cosine")
    options = parser.parse_args()
    constant = finished(read(options.constant))
    print_ranks(list(constant.values()))
    if options.cosine is not None:
        cosine = finished(read(options.cosine))
        both = [settings for settings in constant if settings in cosine]
        print()
        print_comparison([cosine[s] for s in both], [constant[s] for s in both])


def finished(rows: Iterable[Row]) -> dict[str, Row]:
    """The rows with a final score, by their settings."""
    return {row["settings"]: row for row in rows if row[FINAL]}


def print_ranks(rows: Sequence[Row]) -> None:
    """Rank correlation of each rung with the end, and how many steps a run has behind it there."""
    scores, draws = table(rows), resamples(len(rows))
    steps = np.median([int(row["steps"]) for row in rows])
    print(f"{len(rows)} configurations, {steps:.0f} steps each (median)")
    print("| rung | steps | Spearman with the end |\n| --- | --- | --- |")
    for column, rung in enumerate(RUNGS):
        share = (SHARES.index(rung) + 1) / EVALUATIONS
        print(f"| {rung} | {steps * share:.0f} | {with_interval(correlations(scores, column, draws))} |")


def print_comparison(cosine: Sequence[Row], constant: Sequence[Row]) -> None:
    """The two schedules on the same configurations, and their difference."""
    print(f"{len(cosine)} configurations with both schedules")
    tables, draws = (table(cosine), table(constant)), resamples(len(cosine))
    print("| Spearman with the end | cosine | constant, cooldown | difference |\n| --- | --- | --- | --- |")
    for column, rung in enumerate(RUNGS):
        one, other = (correlations(scores, column, draws) for scores in tables)
        print(f"| {rung} | {' | '.join(with_interval(values) for values in (one, other, other - one))} |")
    one, other = (means(scores[:, -1], draws) for scores in tables)
    print(f"| mean final PSNR (dB) | {' | '.join(with_interval(v) for v in (one, other, other - one))} |")
    best = [scores[:, -1].max() for scores in tables]
    print(f"| best (dB) | {best[0]:.2f} | {best[1]:.2f} | {best[1] - best[0]:.2f} |")


def table(rows: Sequence[Row]) -> NDArray[np.float64]:
    """(configurations, rungs and the end)"""
    return np.array([[float(row[column]) for column in (*RUNGS, FINAL)] for row in rows])


def resamples(number: int) -> list[NDArray[np.int64]]:
    """All of so many configurations, then bootstrap samples of them."""
    rng = np.random.default_rng(0)
    return [np.arange(number), *rng.integers(number, size=(RESAMPLES, number))]


def correlations(
    scores: NDArray[np.float64], column: int, draws: Iterable[NDArray[np.int64]]
) -> NDArray[np.float64]:
    return np.array([rank_correlation(scores[draw, column], scores[draw, -1]) for draw in draws])


def rank_correlation(early: NDArray[np.float64], final: NDArray[np.float64]) -> float:
    """Spearman's; nan where one side has no order."""
    if np.ptp(early) == 0 or np.ptp(final) == 0:
        return float("nan")
    return float(spearmanr(early, final).statistic)


def means(values: NDArray[np.float64], draws: Iterable[NDArray[np.int64]]) -> NDArray[np.float64]:
    return np.array([values[draw].mean() for draw in draws])


def with_interval(values: NDArray[np.float64]) -> str:
    """The first value is that of all configurations, the others are of samples of them."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return f"{values[0]:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
