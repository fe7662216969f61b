"""Does the rank of a trial at a rung predict its final rank? Cosine against constant with a cooldown.

    python -m tests.benchmarks.rung_ranks --data DIR --configurations 30 --out ranks.csv

Draws configurations of a study at random and trains each twice, from the same seed and for the same
compute: with a cosine and with a constant rate and cooldown in place of its own schedule. Scores go to
the CSV run by run; the same command goes on where it was stopped, and more configurations may be asked
for later. Final scores are those of a trial: its best rung, over all pairs of `val_megapixels`. Intervals
hold 95 % of bootstrap samples of the configurations.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from data import Split
from search import space, study
from search.trial.train import Diverged, train
from tests.benchmarks.by_hand import Silent

SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"kind": "cosine"},
    "constant_cooldown": {"kind": "constant_cooldown"},
}
EIGHTHS = (1, 2, 4, 6, 8)
RUNGS = [f"{12.5 * eighth:g} %" for eighth in EIGHTHS]
FINAL = "final"
COLUMNS = ["configuration", "schedule", "steps", "seconds", *RUNGS, FINAL, "recipe"]
RESAMPLES = 2000

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--study", default="kbnet", help="whose search space")
    parser.add_argument("--configurations", type=int, default=30)
    parser.add_argument("--teramacs", type=float, help="compute of a run; default: that of the study")
    parser.add_argument(
        "--out", type=Path, default=Path("rung_ranks.csv"), help="CSV to write and go on with"
    )
    options = parser.parse_args()
    spec = study.load(options.study).with_data(options.data, None, None)
    length = {"steps": {"teramacs": options.teramacs}} if options.teramacs else {}
    rows = {(row["configuration"], row["schedule"]): row for row in read(options.out)}
    with tempfile.TemporaryDirectory() as folder:
        split: Split | None = None
        for number in range(options.configurations):
            tree = space.fill(spec.recipe, space.RandomSuggester(number)) | length | {"evaluations": 8}
            recipe = json.dumps({key: value for key, value in tree.items() if key != "schedule"})
            for name, schedule in SCHEDULES.items():
                if known := rows.get((str(number), name)):
                    if known["recipe"] != recipe:
                        parser.error(
                            f"{options.out}: configuration {number} is of another study, data or compute"
                        )
                    continue
                split = split or study.close(tree).data.open(seed=0, cache=Path(folder))
                row = {"configuration": str(number), "schedule": name, "recipe": recipe}
                row |= run({**tree, "schedule": schedule}, split, Path(folder) / f"{number}-{name}")
                append(options.out, row)
                rows[str(number), name] = row
                print(f"{number} {name}: {row[FINAL] or 'diverged'} ({row['seconds']} s)", flush=True)
    summarise(rows.values())


def run(tree: Mapping[str, Any], split: Split, folder: Path) -> Row:
    """Train once; no scores if that diverges."""
    model = {**tree["model"], "channels": split.channels}
    config = study.close({**tree, "model": model})
    try:
        result = train(config, split, torch.device("cpu"), folder, Silent())
    except Diverged:
        return {"steps": str(config.total_steps), "seconds": "", **dict.fromkeys([*RUNGS, FINAL], "")}
    scores = {score.step: score.psnr_db for score in result.rungs}
    steps = [max(1, round(config.total_steps * eighth / 8)) for eighth in EIGHTHS]
    return {
        "steps": str(config.total_steps),
        "seconds": f"{result.score.seconds:.0f}",
        **{rung: f"{scores[step]:.4f}" for rung, step in zip(RUNGS, steps, strict=True)},
        FINAL: f"{result.score.psnr_db:.4f}",
    }


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Row) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def summarise(rows: Iterable[Row]) -> None:
    """Rank correlations of rungs with the end, and the end itself, for configurations that both schedules finish."""
    finished = {(row["configuration"], row["schedule"]): row for row in rows if row[FINAL]}
    numbers = sorted({n for n, _ in finished if all((n, s) in finished for s in SCHEDULES)}, key=int)
    print(f"{len(numbers)} configurations with both schedules")
    if len(numbers) < 3:
        return
    scores = {
        name: np.array([[float(finished[n, name][c]) for c in (*RUNGS, FINAL)] for n in numbers])
        for name in SCHEDULES
    }
    rng = np.random.default_rng(0)
    draws = [np.arange(len(numbers)), *rng.integers(len(numbers), size=(RESAMPLES, len(numbers)))]
    print(f"| Spearman with the end | {' | '.join(SCHEDULES)} | difference |\n| --- | --- | --- | --- |")
    for column, rung in enumerate(RUNGS):
        ranks = {
            name: [rank_correlation(s[draw, column], s[draw, -1]) for draw in draws]
            for name, s in scores.items()
        }
        cosine, constant = (np.array(values) for values in ranks.values())
        cells = " | ".join(with_interval(values) for values in (cosine, constant, constant - cosine))
        print(f"| {rung} | {cells} |")
    print("| schedule | mean final PSNR (dB) | best (dB) |\n| --- | --- | --- |")
    finals = {name: s[:, -1] for name, s in scores.items()}
    for name, final in finals.items():
        print(f"| {name} | {with_interval(means(final, draws))} | {final.max():.2f} |")
    cosine, constant = finals.values()
    print(
        f"| difference | {with_interval(means(constant - cosine, draws))} | {constant.max() - cosine.max():.2f} |"
    )


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
