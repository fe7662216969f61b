"""Simulated searches with samplers, pruners and ladders on recorded learning curves.

    python -m tests.benchmarks.replay FILE.csv --seeds 50 --model-seeds 10

FILE.csv is made by tests/benchmarks/curves.py. Searches are simulated in two ways. In the first, the
recorded configurations are the whole space and each is tried once: curves, costs and final scores are exact, but
only random order makes sense, and a search that tries many soon has no more to try. In the second, the
space is that of the study, without end, and curves come from a model (tests/benchmarks/curve_model.py), whose error is
printed: there, samplers learn. That model is linear in the settings, which suits some samplers more than others;
with --trees it is an ensemble of trees, whose error is larger. Taking the nearest recorded configuration for a
proposal would be simpler; it was tried and left, because the nearest one predicts nothing (Spearman of final scores
on PolyU: -0.05; linear model: 0.8).

Compute is in CPU seconds, steps and scores; the unit of the tables is one whole training, the mean over the
file. Only trials that reached their full length count. Each search is one worker and ends within its budget. Those
with a ladder keep what the last stretch of their best trial needs, as `run` does with `finale`; then they train further
trials to the end as long as there is time. Ladder "4 x 2" has factor 4 and 2 rungs, by search/scheduler/policy.py.
Optuna's pruners see a score at each eighth and have Optuna's defaults; "best 3 after 1/16" drops all but three there
(arXiv 2307.15422).

Left out: CMA-ES (Optuna's needs the package cmaes, and knows neither choices nor conditional settings), and
freeze-thaw (ifBO, in NePS): the package does not hold its trained surrogate, but fetches it from figshare.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from search.samplers import make_sampler
from search.scheduler import LadderConfig
from search.study import StudySpec, load_spec
from tests.benchmarks.curve_model import CurveModel
from tests.benchmarks.curve_trees import TreeModel
from tests.benchmarks.curves import read
from tests.benchmarks.proposals import AtRandom, Proposer, Recorded, Sampled, Sampler
from tests.benchmarks.recording import Curve, Floats, curves, unit
from tests.benchmarks.tuners import FINALISTS, FinishPlan, State, ended, whole, with_rungs

BUDGETS = (1.5, 2.0, 4.0, 8.0, 16.0)
STEP = 0.25
"""Between budgets at which a target is looked for, in whole trainings."""
LADDERS = tuple(
    LadderConfig(factor=factor, rungs=rungs)
    for factor, rungs in ((2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (4, 2), (16, 1))
)
WITH_SAMPLER = (
    LadderConfig(factor=3, rungs=1),
    LadderConfig(factor=3, rungs=2),
    LadderConfig(factor=2, rungs=3),
    LadderConfig(factor=2, rungs=4),
    LadderConfig(factor=4, rungs=2),
)
WITH_GP = WITH_SAMPLER[:3]
TOP_K = ((16, 3), (8, 3), (4, 3))
"""The only rung, as a part of a training, and K."""
EVERYONE = FinishPlan(most=FINALISTS)
RIVAL = "TPE, median"

Play = Callable[[Proposer], list[State]]


@dataclass(frozen=True)
class Search:
    """A row of a table: the states of a search for each seed."""

    name: str
    runs: Sequence[Sequence[State]]
    finish_plan: FinishPlan = EVERYONE

    def at(self, budgets: Floats) -> Floats:
        """(budgets, seeds): the best scores within so many seconds; -inf for none."""
        return np.stack([ended(states, budgets, self.finish_plan) for states in self.runs], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="CSV of curves.py")
    parser.add_argument("--study", default="kbnet", help="whose space was recorded")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument(
        "--model-seeds", type=int, default=10, help="of samplers that learn; 0: leave them out"
    )
    parser.add_argument("--gp", action="store_true", help="Optuna's Gaussian process too: minutes more")
    parser.add_argument(
        "--trees", action="store_true", help="curves from trees instead of lines; needs scikit-learn"
    )
    parser.add_argument("--budgets", type=float, nargs="+", help="in whole trainings")
    parser.add_argument(
        "--trainings", type=int, help="of random search, for the target; default: half of the configurations"
    )
    parser.add_argument("--free-scores", action="store_true", help="as if evaluations took no time")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recorded = curves(read(options.file), options.free_scores)
    trainings = options.trainings or len(recorded) // 2
    table = partial(
        print_tables,
        budgets=options.budgets or [*BUDGETS, float(trainings)],
        trainings=[trainings // 4, trainings // 2, trainings],
        seconds=unit(recorded),
    )
    print(in_words(recorded))
    print(f"\nOn the recorded configurations, {options.seeds} seeds:\n")
    table(exact_searches(recorded, options.seeds))
    spec = load_spec(options.study)
    # As curves.py fixed it.
    recipe = {**spec.recipe, "schedule": {"kind": "constant_cooldown"}}
    model = (TreeModel if options.trees else CurveModel)(recorded, recipe)
    print(f"\nIn the space of the study, curves from the model, {options.seeds} seeds ", end="")
    print(f"({options.model_seeds} of samplers that learn):\n{model.error()}\n")
    horizon = trainings * unit(recorded)
    searches = endless_searches(model, recipe, options.seeds, horizon)
    if options.model_seeds:
        searches += learning_searches(model, recipe, spec, options.model_seeds, horizon, options.gp)
    table(searches)


def in_words(recorded: Sequence[Curve]) -> str:
    """The file in a few lines."""
    final, seconds = np.array([curve.final for curve in recorded]), unit(recorded)
    scores = 1 - float(np.mean([curve.training for curve in recorded])) / seconds
    return (
        f"{len(recorded)} configurations, {int(np.isnan(final).sum())} diverged; final {np.nanmin(final):.2f} to "
        f"{np.nanmax(final):.2f} dB, median {np.nanmedian(final):.2f}\n"
        f"a whole training: {seconds:.1f} s, {scores:.0%} of it for scores"
    )


def pruners() -> dict[str, optuna.pruners.BasePruner]:
    return {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(),
        "30th percentile": optuna.pruners.PercentilePruner(30.0),
        "successive halving": optuna.pruners.SuccessiveHalvingPruner(),
        "Hyperband": optuna.pruners.HyperbandPruner(max_resource=8),
    }


def exact_searches(recorded: Sequence[Curve], seeds: int) -> list[Search]:
    """Searches over the recorded configurations in random order."""
    return at_random(lambda seed: Recorded(list(recorded), seed), LADDERS, seeds, np.inf)


def endless_searches(
    model: CurveModel, recipe: Mapping[str, Any], seeds: int, horizon: float
) -> list[Search]:
    """Random search in the whole space."""
    return at_random(lambda seed: AtRandom(model, recipe, seed), WITH_SAMPLER, seeds, horizon)


def at_random(
    start: Callable[[int], Proposer], ladders: Sequence[LadderConfig], seeds: int, horizon: float
) -> list[Search]:
    """Random search with each pruner, with the best K after one rung, and on ladders."""

    def runs(play: Play) -> list[list[State]]:
        return [play(start(seed)) for seed in range(seeds)]

    found = [
        Search(f"random, {name}", runs(partial(whole, pruner=pruner, until=horizon)))
        for name, pruner in pruners().items()
    ]
    for part, k in TOP_K:
        ladder = LadderConfig(factor=part, rungs=1)
        play = partial(with_rungs, ladder=ladder, until=horizon, promote=False)
        found.append(Search(f"random, best {k} after 1/{part}", runs(play), FinishPlan(needed=k, most=k)))
    for ladder in ladders:
        found.append(
            Search(f"random, {title(ladder)}", runs(partial(with_rungs, ladder=ladder, until=horizon)))
        )
    return found


def learning_searches(
    model: CurveModel, recipe: Mapping[str, Any], spec: StudySpec, seeds: int, horizon: float, gp: bool
) -> list[Search]:
    """Samplers that learn, alone and with a pruner or a ladder. "TPE" and "Optuna's GP" are as Optuna has them."""

    def ours(kind: str, ladder: LadderConfig) -> Callable[[int], Sampler]:
        here = spec.with_changes(sampler=kind, ladder=ladder.model_dump(), recipe=dict(recipe), first=())
        return lambda seed: partial(make_sampler, here.with_changes(seed=seed))

    def runs(play: Play, sampler: Callable[[int], Sampler]) -> list[list[State]]:
        return [play(Sampled(model, recipe, sampler(seed), seed)) for seed in range(seeds)]

    def tpe(seed: int) -> Sampler:
        return lambda number: optuna.samplers.TPESampler(seed=1000 * seed + number)

    def optuna_gp(seed: int) -> Sampler:
        return lambda number: optuna.samplers.GPSampler(seed=1000 * seed + number)

    to_the_end = {name: partial(whole, pruner=pruners()[name], until=horizon) for name in ("none", "median")}
    found = [Search(f"TPE, {way}", runs(play, tpe)) for way, play in to_the_end.items()]
    if gp:
        found.append(Search("Optuna's GP, none", runs(to_the_end["none"], optuna_gp)))
    ours_too = (("tpe", "grouped TPE", WITH_SAMPLER), ("gp", "GP over rungs", WITH_GP))
    for kind, name, ladders in ours_too:
        sampler = ours(kind, LadderConfig(rungs=0))
        found += [Search(f"{name}, {way}", runs(play, sampler)) for way, play in to_the_end.items()]
        for ladder in ladders:
            play = partial(with_rungs, ladder=ladder, until=horizon / 2)
            found.append(Search(f"{name}, {title(ladder)}", runs(play, ours(kind, ladder))))
    return found


def title(ladder: LadderConfig) -> str:
    return f"ladder {ladder.factor} x {ladder.rungs}"


def print_tables(
    searches: Sequence[Search], budgets: Sequence[float], trainings: Sequence[int], seconds: float
) -> None:
    """Scores by budget, and budgets by score. All in whole trainings, of so many seconds."""
    print("Best final PSNR (dB) by compute in whole trainings, median (quartiles):\n")
    print(f"| search | {' | '.join(f'{budget:g}' for budget in budgets)} |")
    print("| --- |" + " --- |" * len(budgets))
    for search in searches:
        cells = [quartiles(scores) for scores in search.at(seconds * np.array(budgets))]
        print(f"| {search.name} | {' | '.join(cells)} |")
    grid = np.arange(STEP, max(trainings) + STEP / 2, STEP)
    medians = {search.name: np.median(search.at(seconds * grid), axis=1) for search in searches}
    first = next(iter(medians.values()))
    goals = [float(first[grid == number][0]) for number in trainings]
    titles = [f"{n} trainings ({goal:.2f} dB)" for n, goal in zip(trainings, goals, strict=True)]
    print("\nCompute (share) until the median is that of random search without a pruner, with\n")
    print(
        f"| search | {' | '.join(titles)} | share of TPE + median's |\n| --- |" + " --- |" * (len(goals) + 1)
    )
    rival = medians.get(RIVAL)
    theirs = reached(grid, rival, goals[-1]) if rival is not None else None
    for name, scores in medians.items():
        computes = [reached(grid, scores, goal) for goal in goals]
        cells = [f"{c:.2f} ({c / n:.2f})" if c else "-" for c, n in zip(computes, trainings, strict=True)]
        cells.append(f"{computes[-1] / theirs:.2f}" if computes[-1] and theirs else "-")
        print(f"| {name} | {' | '.join(cells)} |")


def quartiles(scores: Floats) -> str:
    """The median and the quartiles; a dash where a search has nothing to show yet."""
    if np.mean(np.isfinite(scores)) < 0.75:
        return "-"
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75], method="lower")
    return f"{middle:.2f} ({low:.2f}, {high:.2f})"


def reached(grid: Floats, scores: Floats, goal: float) -> float | None:
    """The first budget with such a score."""
    there = np.flatnonzero(scores >= goal)
    return float(grid[there[0]]) if len(there) else None


if __name__ == "__main__":
    main()
