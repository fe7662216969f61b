"""Dense-sparse-dense training against its dense control: equal steps, equal drops of the learning rate.

    python -m tests.benchmarks.dsd --data DIR [--teramacs 0.25] [--seeds 3]

The control has the same phases and rates with nothing held at zero, so the difference is what sparsity does.
A plain run without the phases, of as many steps, is shown beside them. Scores are over all validation pairs;
the interval is Student's for the mean difference over seeds.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import scipy.stats
import torch

from search.trial import train
from tests.benchmarks import known
from tests.benchmarks.by_hand import Silent

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--study", default="kbnet", help="whose first recipe")
    parser.add_argument("--sparsity", type=float, default=0.3)
    parser.add_argument("--teramacs", type=float, default=0.25, help="length of each training run")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    arms: dict[str, dict[str, Any]] = {
        "plain": {"kind": "dense"},
        "control": {"kind": "dsd", "sparsity": 0.0},
        "dsd": {"kind": "dsd", "sparsity": options.sparsity},
    }
    scores: dict[str, list[float]] = {name: [] for name in arms}
    print(f"| seed | {' | '.join(arms)} |\n| --- |{' --- |' * len(arms)}")
    with tempfile.TemporaryDirectory() as folder:
        split = known.open_split(options.study, options.data, Path(folder))
        for seed in range(options.seeds):
            for name, sparsity in arms.items():
                config = known.config(
                    options.study,
                    "",
                    options.data,
                    split,
                    sparsity=sparsity,
                    seed=seed,
                    steps={"teramacs": options.teramacs},
                    val_megapixels=1e6,
                )
                result = train(config, split, CPU, Path(folder) / f"{name}-{seed}", Silent())
                scores[name].append(result.score.psnr_db)
            print(f"| {seed} | {' | '.join(f'{values[-1]:.2f}' for values in scores.values())} |", flush=True)
    differences = [dsd - control for dsd, control in zip(scores["dsd"], scores["control"], strict=True)]
    mean, count = statistics.fmean(differences), len(differences)
    half = scipy.stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    print(f"dsd - control: {mean:+.3f} dB, 95 % interval {mean - half:+.3f} to {mean + half:+.3f}")


if __name__ == "__main__":
    main()
