"""Scores of the recipes tried by hand on a folder of pairs, for equal training time.

    python -m tests.benchmarks.by_hand --data DIR --budget 20m

Each known recipe of the study whose name starts with "by hand" gets an equal share of the time: its
speed is measured first, its steps follow. Scores are over all validation pairs, in float32, with averaged weights.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.sources import Split
from search.inference import Score
from search.study import (
    KnownSuggester,
    StudySpec,
    close_recipe,
    fill_leaves,
    load_spec,
    parse_duration,
    with_replacements,
)
from search.study.spec import KnownRecipe
from search.trial import TrialConfig, measure_seconds_per_step, train
from search.trial.timing import Timer
from search.worker import input_score, open_data


class Silent:
    """A callback that does nothing."""

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None: ...
    def stepped(self, step: int, steps: int, loss: Tensor) -> None: ...
    def scored(self, score: Score, dense: bool) -> None: ...
    def rescued(self, note: str) -> None: ...
    def stop_requested(self) -> bool:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--budget", type=parse_duration, default=1200.0, help="training time of all together")
    parser.add_argument("--study", default="kbnet", help="whose known recipes")
    parser.add_argument("--recipes", default="by hand", help="those whose name starts so")
    parser.add_argument(
        "--defaults", action="store_true", help="and the first recipe's network with all else at its default"
    )
    options = parser.parse_args()
    spec = load_spec(options.study).with_data(options.data, None, None)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        split = open_data(spec, scratch)
        print(f"{split.note}; input {input_score(split, range(len(split.val))).psnr_db:.2f} dB")
        print("| recipe | steps | training (s) | PSNR (dB) | SSIM |\n| --- | --- | --- | --- | --- |")
        recipes = [known for known in spec.first if known.name.startswith(options.recipes)]
        trees = {known.name: closed(spec, known, split) for known in recipes}
        if options.defaults:
            trees["defaults"] = {"model": closed(spec, spec.first[0], split)["model"]}
        for number, (name, tree) in enumerate(trees.items()):
            run_one(name, tree, split, options.budget / len(trees), scratch / str(number))


def closed(spec: StudySpec, known: KnownRecipe, split: Split) -> dict[str, Any]:
    """A known recipe with no open leaves."""
    part = with_replacements(spec.recipe, known.recipe)
    tree: dict[str, Any] = fill_leaves(part, KnownSuggester(known.values))
    tree["model"]["channels"] = split.channels
    return tree


def run_one(name: str, tree: dict[str, object], split: Split, seconds: float, folder: Path) -> None:
    """Measure the speed of a recipe, train it for about `seconds`, print its row."""
    common = {"rung_megapixels": 1e-3, "evaluations": 1, "seed": 0}
    per_step = measure_seconds_per_step(close_recipe({**tree, "steps": 1}), split, torch.device("cpu"))
    config = TrialConfig.model_validate(
        {**tree, **common, "steps": max(1, round(seconds / per_step)), "val_megapixels": 1e6}
    )
    timer = Timer()
    started = time.monotonic()
    result = train(config, split, torch.device("cpu"), folder / "run", timer)
    took = timer.times[-1] - started
    print(
        f"| {name} | {config.total_steps} | {took:.0f} | {result.score.psnr_db:.2f} | {result.score.ssim:.4f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
