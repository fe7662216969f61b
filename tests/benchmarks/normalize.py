"""Effect on the score of normalising the channels of the input, with and without undoing it at the end.

    python -m tests.benchmarks.normalize --data DIR --teramacs 0.1

One known recipe of the study `srresnet` is trained for equal compute with each `channel_normalize`, once for each seed.
Scores are those of a trial: in float32, with averaged weights, over the recipe's part of the validation pairs.
"At the start" is the fresh network of the first seed.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from data.sources import Split
from search.inference import Precision, mean_score, score_pairs
from search.study import KnownSuggester, StudySpec, close_recipe, fill_leaves, load_spec, with_replacements
from search.trial import train
from search.worker import input_score, open_data
from tests.benchmarks.by_hand import Silent

KINDS = ("none", "input", "input_and_output")
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of pairs (default: the embedded ones)")
    parser.add_argument("--recipe", default="small and fast", help="a known recipe, by how its name starts")
    parser.add_argument("--teramacs", type=float, default=0.1, help="compute of each training run")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each kind")
    options = parser.parse_args()
    spec = load_spec("srresnet")
    if options.data:
        spec = spec.with_data(options.data, None, None)
    recipe = known_recipe(spec, options.recipe)
    with tempfile.TemporaryDirectory() as folder:
        split = open_data(spec, Path(folder))
        judged = split.val.representative(recipe["val_megapixels"])
        print(f"{split.note}; {len(judged)} are scored, input {input_score(split, judged).psnr_db:.2f} dB")
        print(
            "| channel_normalize | steps | at the start (dB) | trained (dB) | lowest to highest | MAE of 255 |"
        )
        print("| --- | --- | --- | --- | --- | --- |")
        for kind in KINDS:
            model = {**recipe["model"], "channels": split.channels, "channel_normalize": kind}
            tree = {**recipe, "model": model, "steps": {"teramacs": options.teramacs}}
            run_seeds(kind, tree, split, options.seeds, Path(folder))


def known_recipe(spec: StudySpec, name: str) -> dict[str, Any]:
    """The closed recipe of the first known one whose name starts so."""
    known = next(known for known in spec.first if known.name.startswith(name))
    filled: dict[str, Any] = fill_leaves(
        with_replacements(spec.recipe, known.recipe), KnownSuggester(known.values)
    )
    return filled


def run_seeds(kind: str, tree: dict[str, Any], split: Split, seeds: int, folder: Path) -> None:
    """Train once for each seed and print the row of this kind."""
    configs = [
        close_recipe({**tree, "seed": seed, "evaluations": 1, "rung_megapixels": 1e-3})
        for seed in range(seeds)
    ]
    torch.manual_seed(0)
    fresh = configs[0].model.build().eval()
    judged = map(split.val.whole, split.val.representative(configs[0].val_megapixels))
    start = mean_score(score_pairs(fresh, judged, Precision("fp32", CPU)), 0, 0.0)
    scores = [
        train(config, split, CPU, folder / f"{kind}-{config.seed}", Silent()).score for config in configs
    ]
    psnr_db = [score.psnr_db for score in scores]
    print(
        f"| {kind} | {scores[0].step} | {start.psnr_db:.2f} | {fmean(psnr_db):.2f} "
        f"| {min(psnr_db):.2f} to {max(psnr_db):.2f} | {255 * fmean(score.mae for score in scores):.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
