"""Record learning curves: random configurations of a study, each trained to its full length.

    python -m tests.benchmarks.curves --data DIR --configurations 80 --out FILE.csv

From the file, searches with other samplers, pruners or ladders are simulated in seconds
(`tests.benchmarks.replay`), and early scores are compared with final ones (`tests.benchmarks.rung_ranks`).
The schedule of every configuration is replaced by `--schedule` with its defaults: constant with a
cooldown, so that the scores before the cooldown are those of a run of any length.

A row is written when its training ends; the same command goes on where it was stopped, and more
configurations may be asked for later. Times are CPU seconds of this process: they hold on a busy machine
with OMP_NUM_THREADS=1.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.sources import Split
from search.inference import Score
from search.study import RandomSuggester, close_recipe, fill_leaves, load_spec
from search.trial import Diverged, TrialConfig, train
from search.worker import open_data
from tests.benchmarks.by_hand import Silent

EVALUATIONS = 16
SHARES = [f"{share}/{EVALUATIONS}" for share in range(1, EVALUATIONS + 1)]
FINAL = "final"
COLUMNS = [
    "configuration",
    "schedule",
    "settings",
    "parameters",
    "steps",
    "teramacs",
    "step_seconds",
    "evaluation_seconds",
    *SHARES,
    FINAL,
]

Row = dict[str, str]


class Clock(Silent):
    """CPU seconds of steps and of evaluations, and the scores so far."""

    def __init__(self) -> None:
        self.step_seconds = self.evaluation_seconds = 0.0
        self.steps = 0
        self.rungs: list[Score] = []
        self.last = time.process_time()

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        self.lap()

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        self.step_seconds += self.lap()
        self.steps = step

    def scored(self, score: Score, dense: bool) -> None:
        self.evaluation_seconds += self.lap()
        self.rungs.append(score)

    def lap(self) -> float:
        before, self.last = self.last, time.process_time()
        return self.last - before


class Recorder:
    """A random suggester that keeps the values it has drawn."""

    def __init__(self, seed: int) -> None:
        self.random = RandomSuggester(seed)
        self.settings: dict[str, Any] = {}

    def suggest_float(self, name: str, *args: Any, **named: Any) -> float:
        return self.keep(name, self.random.suggest_float(name, *args, **named))

    def suggest_int(self, name: str, *args: Any, **named: Any) -> int:
        return self.keep(name, self.random.suggest_int(name, *args, **named))

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.keep(name, self.random.suggest_categorical(name, choices))

    def keep(self, name: str, value: Any) -> Any:
        self.settings[name] = value
        return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--study", default="kbnet", help="whose search space")
    parser.add_argument("--configurations", type=int, default=80)
    parser.add_argument("--teramacs", type=float, default=0.5, help="length of a training")
    parser.add_argument("--schedule", choices=["constant_cooldown", "cosine"], default="constant_cooldown")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write and go on with")
    options = parser.parse_args()
    spec = load_spec(options.study).with_data(options.data, None, None)
    recipe = {
        **spec.recipe,
        "steps": {"teramacs": options.teramacs},
        "schedule": {"kind": options.schedule},
        "evaluations": EVALUATIONS,
    }
    known = {int(row["configuration"]): row for row in read(options.out)}
    with tempfile.TemporaryDirectory() as folder:
        split = open_data(spec, Path(folder))
        for number in range(options.configurations):
            draw = Recorder(number)
            tree = fill_leaves(recipe, draw)
            settings = json.dumps(draw.settings)
            if number in known:
                if (known[number]["settings"], known[number]["schedule"]) != (settings, options.schedule):
                    parser.error(f"{options.out}: configuration {number} is of another study or schedule")
                continue
            row = {"configuration": str(number), "schedule": options.schedule, "settings": settings}
            row |= record(tree, split, Path(folder) / str(number))
            append(options.out, row)
            print(
                f"{number}: {row[FINAL] or 'diverged'} ({float(row['step_seconds']):.2f} s a step)",
                flush=True,
            )


def record(tree: Mapping[str, Any], split: Split, folder: Path) -> Row:
    """Train once. A run that diverges has no final score; what it scored before stays."""
    config = close_recipe({**tree, "model": {**tree["model"], "channels": split.channels}})
    clock, final = Clock(), ""
    with suppress(Diverged):
        final = f"{train(config, split, torch.device('cpu'), folder, clock).score.psnr_db:.4f}"
    scores = {score.step: f"{score.psnr_db:.4f}" for score in clock.rungs}
    return {
        "parameters": str(sum(p.numel() for p in config.model.build().parameters())),
        "steps": str(config.total_steps),
        "teramacs": f"{config.teramacs_per_step * config.total_steps:.4g}",
        "step_seconds": f"{clock.step_seconds / max(clock.steps, 1):.4g}",
        "evaluation_seconds": f"{clock.evaluation_seconds / max(len(clock.rungs), 1):.4g}",
        **{share: scores.get(step, "") for share, step in zip(SHARES, steps_of(config), strict=True)},
        FINAL: final,
    }


def steps_of(config: TrialConfig) -> list[int]:
    """The step of each share; short runs have several shares at one step."""
    return [max(1, round(config.total_steps * n / EVALUATIONS)) for n in range(1, EVALUATIONS + 1)]


def read(path: Path) -> list[Row]:
    """The rows recorded so far; none if there is no such file."""
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


if __name__ == "__main__":
    main()
