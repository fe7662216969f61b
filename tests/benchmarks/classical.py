"""Distance of the best filter found by the study `classical` to the best of all its filters.

    python -m tests.benchmarks.classical --data DIR --cache FILE.csv [--model runs/kbnet/export]

Every recipe of the study's grid is scored once, on the validation images that the study judges by, and
kept in the cache. On that table the study's own search (its known recipes, then its sampler) is
simulated with several seeds and a share of the evaluations. A deterministic sampler searches alike with every
seed: so the search is also simulated with other known recipes, a random one of each filter.
"""

import argparse
import csv
import itertools
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import optuna
import torch

from data.files import Pair
from search.export.export import load_model
from search.inference import Precision, restore_image, to_codes
from search.inference.metrics import psnr_db
from search.samplers import make_sampler
from search.study import StudySpec, close_recipe, corner_recipes, fill_leaves, load_spec
from search.worker import open_data

CPU = torch.device("cpu")
COLUMNS = ("data", "recipe", "psnr_db", "seconds")
Table = dict[str, float]


def key(params: Mapping[str, Any]) -> str:
    """The name of a recipe by its open settings."""
    rounded = {name: round(value, 9) if isinstance(value, float) else value for name, value in params.items()}
    return json.dumps(rounded, sort_keys=True)


def grid(spec: StudySpec) -> dict[str, Any]:
    """Every recipe of a space without continuous ranges."""
    recipes = {}

    def visit(trial: optuna.Trial) -> float:
        recipe = fill_leaves(spec.recipe, trial)
        recipes[key(trial.params)] = recipe
        return 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.BruteForceSampler()
    optuna.create_study(sampler=sampler).optimize(visit)
    return recipes


def sweep(spec: StudySpec, cache: Path, model: Path | None) -> Table:
    """PSNR of every recipe of the grid; scores in the cache for the same images are reused."""
    with tempfile.TemporaryDirectory() as folder:
        split = open_data(spec, Path(folder))
    recipes = grid(spec)
    config = close_recipe(corner_recipes(spec.recipe)[0])
    pairs = [split.val.whole(index) for index in split.val.representative(config.val_megapixels)]
    data = f"{split.fingerprint}-{len(pairs)}"
    print(f"{len(recipes)} recipes, {len(pairs)} images; {split.note}")
    table: Table = {}
    if cache.exists():
        with cache.open(newline="") as file:
            table = {
                row["recipe"]: float(row["psnr_db"]) for row in csv.DictReader(file) if row["data"] == data
            }
    started = time.process_time()
    with cache.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        for name, recipe in recipes.items():
            if name not in table:
                begun = time.process_time()
                filter_ = close_recipe(
                    {**recipe, "model": {"channels": split.channels, **recipe["model"]}}
                ).model.build()
                table[name] = mean_psnr_db(filter_, pairs)
                writer.writerow((data, name, f"{table[name]:.6f}", f"{time.process_time() - begun:.3f}"))
    print(f"swept in {time.process_time() - started:.0f} s of processor time")
    if model:
        print(f"exported model {model}: {mean_psnr_db(load_model(model), pairs):.2f} dB")
    return {name: table[name] for name in recipes}


def mean_psnr_db(model: torch.nn.Module, pairs: list[Pair]) -> float:
    """Mean PSNR, as of a trial, without its other metrics."""
    precision = Precision("fp32", CPU)
    restored = (restore_image(model, pair.degraded, precision) for pair in pairs)
    return statistics.fmean(
        psnr_db(to_codes(ours), to_codes(pair.clean)) for ours, pair in zip(restored, pairs, strict=True)
    )


def from_elsewhere(spec: StudySpec, table: Table, seed: int) -> StudySpec:
    """The study with other known recipes: one of each filter, at random, in random order."""
    draw = random.Random(seed)
    filters: dict[str, list[Any]] = {}
    for name in table:
        params = json.loads(name)
        filters.setdefault(params["model.filter"], []).append(params)
    first = [{"name": kind, **draw.choice(recipes)} for kind, recipes in filters.items()]
    return spec.with_changes(first=draw.sample(first, len(first)))


def play(spec: StudySpec, table: Table, trials: int) -> list[str]:
    """The recipes that the study tries, one after another, if each scores what the table says."""
    simulated = optuna.create_study(direction="maximize")
    for known in spec.first:
        simulated.enqueue_trial(dict(known.values))
    tried = []
    for _ in range(trials):
        simulated.sampler = make_sampler(spec, len(simulated.trials))
        trial = simulated.ask()
        fill_leaves(spec.recipe, trial)
        tried.append(key(trial.params))
        simulated.tell(trial, table[tried[-1]])
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--study", default="classical", help="a study of filters, all settings discrete")
    parser.add_argument(
        "--cache", type=Path, required=True, help="CSV file that keeps the scores of the grid"
    )
    parser.add_argument("--share", type=float, default=0.15, help="evaluations, as a share of the grid")
    parser.add_argument("--seeds", type=int, default=20, help="searches to play through")
    parser.add_argument("--against", default="tpe,random", help="samplers to compare the study's with")
    parser.add_argument("--model", type=Path, help="an exported model to score on the same images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spec = load_spec(options.study).with_data(options.data, None, None)
    table = sweep(spec, options.cache, options.model)
    best: dict[str, tuple[float, str]] = {}
    for name, score in table.items():
        kind = json.loads(name)["model.filter"]
        best[kind] = max(best.get(kind, (0.0, "")), (score, name))
    print("| filter | settings | PSNR (dB) |\n| --- | --- | --- |")
    for kind, (score, name) in sorted(best.items(), key=lambda item: -item[1][0]):
        settings = {path.split(".")[-1]: value for path, value in json.loads(name).items() if "." in path[6:]}
        shown = ", ".join(f"{setting} {value}" for setting, value in settings.items() if setting != "filter")
        print(f"| {kind} | {shown} | {score:.2f} |")
    trials = min(int(options.share * len(table)), spec.trials)
    top = max(table.values())
    print(f"searches of {trials} of {len(table)} recipes ({trials / len(table):.1%}), {options.seeds} each")
    print(
        "| sampler | starts | below the best: median (dB) | worst (dB) | within 0.05 dB | tried twice | unlike |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    samplers = (spec.sampler, *options.against.split(","))
    for sampler, elsewhere in itertools.product(samplers, (False, True)):
        searches = []
        for seed in range(options.seeds):
            seeded = spec.with_changes(seed=seed, sampler=sampler)
            searches.append(play(from_elsewhere(seeded, table, seed) if elsewhere else seeded, table, trials))
        gaps = [top - max(table[name] for name in tried) for tried in searches]
        repeats = statistics.median(len(tried) - len(set(tried)) for tried in searches)
        print(
            f"| {sampler} | {'at random' if elsewhere else 'as known'} | {statistics.median(gaps):.3f} "
            f"| {max(gaps):.3f} | {sum(gap <= 0.05 for gap in gaps)} of {options.seeds} | {repeats:.0f} "
            f"| {len(set(map(tuple, searches)))} |"
        )


if __name__ == "__main__":
    main()
