"""Gain of a wider or deeper network that starts from the weights of a smaller, trained one, for equal compute.

    python -m tests.benchmarks.inherit --data DIR [--teramacs 0.2] [--share 1] [--seeds 3] [--recipes 8] [--live 4m]

Pairs: the network of the first recipe of `kbnet`, and one of twice its width, or of three blocks in its middle. Each is
trained from scratch, the large one as well from the weights of the small one (`match = "overlap"`), all for equal
compute. In a search the small one was trained anyway; where its compute is to count, the large one from scratch gets
both. With `--share` the small one is trained for a share of that compute only: on the ladder of a search, whoever is
trained to the end can have inherited from the rungs below alone.

Recipes: random ones of the study, all with larger networks than that first one, each from scratch and from the weights
of the small network. How often is one with inherited weights ahead of one without, at a rung and at the end? A ladder
that sees both side by side judges the start as well as the recipe.

Live: whole searches of `kbnet`, with `inherit_weights` and without, for equal time; the winners' scores.

Scores at rungs are of few pixels, those at the end of `val_megapixels`. Intervals are Student's, 95 %.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import scipy.stats
import torch

from data.sources import Split
from search.database import default_storage_url, facts_of, has_begun, load_study, ranked_trials
from search.launch import run_in_process
from search.study import RandomSuggester, close_recipe, fill_leaves, load_spec, parse_duration
from search.trial import Diverged, TrialConfig, train
from search.trial.training import TrialResult
from search.worker import RunOptions
from tests.benchmarks import known
from tests.benchmarks.by_hand import Silent

CPU = torch.device("cpu")
STUDY = "kbnet"
SMALL = {"kind": "kbnet_s", "width": 8, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
SMALL |= {"lightweight": True}
LARGE = {"width 8 -> 16": {"width": 16}, "middle blocks 1 -> 3": {"middle_blocks": 3}}
JUDGED = {"evaluations": 1, "pauses": (1 / 27, 1 / 9, 1 / 3), "rung_megapixels": 0.3, "val_megapixels": 1.1}
RUNGS = ("1/27", "1/9", "1/3", "end")
MOST_DRAWS = 1000

Scores = list[float]


class Bench:
    """Trains on one set of pairs."""

    def __init__(self, data: Path, teramacs: float, share: float, folder: Path) -> None:
        self.data, self.teramacs, self.share, self.folder = data, teramacs, share, folder
        self.split: Split = known.open_split(STUDY, data, folder)
        self.count = 0

    def known(self, model: dict[str, Any], seed: int, times: float = 1) -> TrialConfig:
        """The first recipe with another network, `times` as long."""
        return known.config(
            STUDY,
            "",
            self.data,
            self.split,
            model={"channels": self.split.channels, **model},
            seed=seed,
            steps={"teramacs": times * self.teramacs},
            **JUDGED,
        )

    def small(self, seed: int) -> TrialResult:
        """The small network, trained for its share of the compute."""
        result = self.train(self.known(SMALL, seed + 100, self.share))
        assert result is not None, "the first recipe is a tame one"
        return result

    def drawn(self, count: int) -> list[TrialConfig]:
        """Random recipes whose networks hold the small one, dense, with a constant rate and a cooldown."""
        recipe = load_spec(STUDY).with_data(self.data, None, None).recipe
        recipe |= {
            "steps": {"teramacs": self.teramacs},
            "schedule": {"kind": "constant_cooldown"},
            "sparsity": {"kind": "dense"},
            "model": recipe["model"]["choices"]["two_levels"],
            **JUDGED,
        }
        found: list[TrialConfig] = []
        for seed in range(MOST_DRAWS):
            tree = fill_leaves(recipe, RandomSuggester(seed))
            tree |= {"model": {"channels": self.split.channels, **tree["model"]}, "seed": seed}
            config = close_recipe(tree)
            if config.model != self.known(SMALL, 0).model:
                found.append(config)
            if len(found) == count:
                break
        return found

    def train(self, config: TrialConfig, start: TrialResult | None = None) -> TrialResult | None:
        """The result, from the weights of an earlier one if given; None if it diverged."""
        self.count += 1
        if start is not None:
            initial = {"file": start.weights, "match": "overlap"}
            config = TrialConfig.model_validate({**config.model_dump(), "initial": initial})
        try:
            return train(config, self.split, CPU, self.folder / str(self.count), Silent())
        except Diverged:
            return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--teramacs", type=float, default=0.2, help="length of each training run")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of that length, for which the small one is trained"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the pairs")
    parser.add_argument("--recipes", type=int, default=8, help="random ones, trained with and without")
    parser.add_argument("--live", type=parse_duration, help="time of whole searches, with and without")
    parser.add_argument("--live-seeds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.data, options.teramacs, options.share, Path(folder))
        if options.seeds:
            pairs(bench, options.seeds)
        if options.recipes:
            recipes(bench, options.recipes)
        if options.live:
            live(options.data, options.live, options.live_seeds, Path(folder))


def pairs(bench: Bench, seeds: int) -> None:
    """Each pair of networks from each seed."""
    gained, over_both = [], []
    print(f"| {'pair':20} | seed | at | small | large | large, of both | large, inherited | gain |")
    print(f"|{' --- |' * 8}")
    for seed in range(seeds):
        small = bench.small(seed)
        for name, changes in LARGE.items():
            large = {**SMALL, **changes}
            runs = [
                bench.train(bench.known(large, seed)),
                bench.train(bench.known(large, seed, 1 + bench.share)),
                bench.train(bench.known(large, seed), start=small),
            ]
            table = [scores(run) for run in (small, *runs) if run is not None]
            for rung, row in zip(RUNGS, zip(*table, strict=True), strict=True):
                cells = " | ".join(f"{score:.2f}" for score in row)
                print(f"| {name:20} | {seed} | {rung} | {cells} | {row[3] - row[1]:+.2f} |", flush=True)
            gained.append([new - old for old, new in zip(table[1], table[3], strict=True)])
            over_both.append(table[3][-1] - table[2][-1])
    for place, rung in enumerate(RUNGS):
        print(f"inherited - scratch, {rung}: {interval([gain[place] for gain in gained])}")
    print(f"inherited - scratch with the compute of both, end: {interval(over_both)}")


def recipes(bench: Bench, count: int) -> None:
    """Random recipes, with and without the weights of the small network."""
    small = bench.small(0)
    print(f"\nsmall: {' '.join(f'{score:.2f}' for score in scores(small))} at {', '.join(RUNGS)}")
    print(f"| recipe | scratch: {', '.join(RUNGS)} | inherited |\n| --- | --- | --- |")
    without: list[Scores] = []
    inherited: list[Scores] = []
    for config in bench.drawn(count):
        runs = [bench.train(config), bench.train(config, start=small)]
        found = [scores(run) for run in runs if run is not None]
        if len(found) < len(runs):
            print("one that diverged is left out")
            continue
        without.append(found[0])
        inherited.append(found[1])
        cells = " | ".join(" ".join(f"{score:.2f}" for score in run) for run in found)
        print(
            f"| lr {config.optimizer.lr:.1e}, {config.loss.kind}, {_shape(config)} | {cells} |",
            flush=True,
        )
    for place, rung in enumerate(RUNGS):
        gains = [new[place] - old[place] for old, new in zip(without, inherited, strict=True)]
        print(f"inherited - scratch, {rung}: {interval(gains)}; {mixed(without, inherited, place)}")
    sides = {"from scratch": [without], "inherited": [inherited], "half and half": halves(without, inherited)}
    for name, fields in sides.items():
        ends = statistics.fmean(picked(field) for field in fields)
        best = statistics.fmean(max(run[-1] for run in field) for field in fields)
        print(f"a ladder over them, {name}: ends at {ends:.2f} dB, the best of them at {best:.2f}")


def live(data: Path, seconds: float, seeds: int, folder: Path) -> None:
    """Run whole searches, each with its own database."""
    print("\n| seed | inherit_weights | winner (dB) | trials begun | steps | parameters | began from |")
    print(f"|{' --- |' * 7}")
    gains = []
    for seed in range(seeds):
        found = []
        for inherits in (False, True):
            spec = load_spec(STUDY).with_data(data, None, None)
            recipe = {**spec.recipe, "val_megapixels": 4.0}
            spec = spec.with_changes(recipe=recipe, seed=seed, timeout=seconds, inherit_weights=inherits)
            out = folder / f"live-{seed}-{inherits}"
            url = default_storage_url(out)
            found.append(
                run_in_process(spec, RunOptions(storage=url, out=out, device=CPU, quiet=True)).best_psnr_db
            )
            made = load_study(spec.name, url)
            begun = sum(has_begun(trial) for trial in made.get_trials(deepcopy=False))
            winner = facts_of(ranked_trials(made)[0])
            behind = (winner.inherited or {"trials": []})["trials"]
            cells = f"{begun} | {winner.steps_done} | {winner.parameters} | {behind or 'scratch'} |"
            print(f"| {seed} | {inherits} | {found[-1]:.2f} | {cells}", flush=True)
        gains.append(found[1] - found[0])
    print(f"with - without: {interval(gains)}" if seeds > 1 else f"with - without: {gains[0]:+.2f} dB")


def mixed(without: Sequence[Scores], inherited: Sequence[Scores], place: int) -> str:
    """Ranking at a rung where some trials inherit weights and others do not, in words."""
    # A recipe against itself is no decision that a ladder has to make.
    pairings = [(i, j) for i, j in product(range(len(without)), repeat=2) if i != j]
    ahead = statistics.fmean(inherited[i][place] > without[j][place] for i, j in pairings)
    text = f"ahead of others from scratch in {ahead:.0%} of pairs"
    if place + 1 == len(RUNGS):
        return text
    same = statistics.fmean(
        (inherited[i][place] > without[j][place]) == (inherited[i][-1] > without[j][-1]) for i, j in pairings
    )
    ranks = [
        scipy.stats.spearmanr([s[place] for s in side], [s[-1] for s in side]).statistic
        for side in (without, inherited)
    ]
    blend = statistics.fmean(
        scipy.stats.spearmanr([s[place] for s in side], [s[-1] for s in side]).statistic
        for side in halves(without, inherited)
    )
    return (
        f"{text}, in the order of the end in {same:.0%}; Spearman with the end {ranks[0]:.2f} from scratch, "
        f"{ranks[1]:.2f} inherited, {blend:.2f} mixed half and half"
    )


def halves(without: Sequence[Scores], inherited: Sequence[Scores]) -> list[list[Scores]]:
    """All the ways in which half of the recipes inherit and the other half does not."""
    count = len(without)
    return [
        [(inherited if number in chosen else without)[number] for number in range(count)]
        for chosen in combinations(range(count), count // 2)
    ]


def picked(runs: Sequence[Scores]) -> float:
    """Final score of the trial that a ladder keeps: a third continues after 1/9, one after 1/3."""
    there = sorted(runs, key=lambda run: -run[RUNGS.index("1/9")])[: math.ceil(len(runs) / 3)]
    return max(there, key=lambda run: run[RUNGS.index("1/3")])[-1]


def scores(run: TrialResult) -> Scores:
    """At the rungs below the end, and at the end over more pixels."""
    return [rung.psnr_db for rung in run.rungs[:-1]] + [run.score.psnr_db]


def interval(values: Sequence[float]) -> str:
    """Mean and Student's 95 % interval."""
    mean, count = statistics.fmean(values), len(values)
    half = scipy.stats.t.ppf(0.975, count - 1) * statistics.stdev(values) / math.sqrt(count)
    return f"{mean:+.2f} dB ({mean - half:+.2f} to {mean + half:+.2f}, {count} runs)"


def _shape(config: TrialConfig) -> str:
    model = config.model.model_dump()
    return f"width {model['width']}, {model['middle_blocks']} + {model['decoder_blocks'][0]} blocks"


if __name__ == "__main__":
    main()
