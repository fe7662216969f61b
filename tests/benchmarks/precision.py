"""bfloat16 against float32: time of a training step, and the score after equal steps.

    python -m tests.benchmarks.precision [--data DIR] [--teramacs 0.2]

The first recipe of each study. Steps of the two take turns in one process, in blocks, so that a noisy machine
hits both alike; the ratio is that of the median blocks. Then both are trained to the end from the same seeds;
the difference is the mean over seeds, with its 95 % interval (Student's t).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from scipy.stats import t

from data.sources import Split
from search.inference import Precision
from search.trial import TrialConfig, train
from search.trial.batches import Batches
from search.trial.state import State
from tests.benchmarks import known
from tests.benchmarks.by_hand import Silent

CPU = torch.device("cpu")
BLOCK, BLOCKS = 3, 7


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", default="dncnn,nafnet,kbnet", help="whose first recipes")
    parser.add_argument("--data", type=Path, help="folder of pairs (default: the demo)")
    parser.add_argument("--teramacs", type=float, default=0.2, help="length of each training run")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    print("| study | fp32 / bf16 step time | auto | PSNR fp32 | PSNR bf16 | difference (dB, 95 %) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.studies.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print_row(name, options, Path(folder))


def print_row(name: str, options: argparse.Namespace, scratch: Path) -> None:
    split = known.open_split(name, options.data, scratch)

    def config(precision: str, seed: int) -> TrialConfig:
        steps = {"teramacs": options.teramacs}
        return known.config(
            name, "", options.data, split, precision=precision, seed=seed, steps=steps, val_megapixels=8.0
        )

    seconds = step_seconds([config("fp32", 0), config("bf16", 0)], split, scratch)
    ratio = seconds[0] / seconds[1]
    scores: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for precision, values in scores.items():
        for seed in range(options.seeds):
            folder = scratch / f"{precision}-{seed}"
            values.append(train(config(precision, seed), split, CPU, folder, Silent()).score.psnr_db)
    means = {precision: statistics.fmean(values) for precision, values in scores.items()}
    differences = [half - full for full, half in zip(scores["fp32"], scores["bf16"], strict=True)]
    margin = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    auto = Precision("auto", CPU).name
    print(
        f"| {name} | {ratio:.2f} | {auto} | {means['fp32']:.2f} | {means['bf16']:.2f} "
        f"| {statistics.fmean(differences):+.3f} +- {margin:.3f} |",
        flush=True,
    )


def step_seconds(configs: list[TrialConfig], split: Split, scratch: Path) -> list[float]:
    """Median time of a training step of each config, measured in turns."""
    states = [
        State(config, CPU, scratch / f"timed-{n}", lambda note: None) for n, config in enumerate(configs)
    ]
    first = configs[0]
    batches = Batches(first.crops, split.train, first.augmentation, 0, first.steps_at, CPU)
    times: list[list[float]] = [[] for _ in states]
    for block in range(BLOCKS + 1):
        for state, seconds in zip(states, times, strict=True):
            started = time.perf_counter()
            for step in range(block * BLOCK, (block + 1) * BLOCK):
                state.backward(batches.batch(step))
                state.step_optimizers(lr=1e-3)
            seconds.append((time.perf_counter() - started) / BLOCK)
    return [statistics.median(seconds[1:]) for seconds in times]


if __name__ == "__main__":
    main()
