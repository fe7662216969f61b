"""Time to create a new trial in a large study, with all its settings drawn.

    python -m tests.benchmarks.suggest --trials 2000

Fills a database with so many trials of a study, as a search leaves them: most pruned at a rung, some
paused there, some complete. Then times what a worker does for each new one: creating the trial and
filling the open leaves of the recipe, with the study's own sampler.
CPU seconds hold on a busy machine, but leave out the disk.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from search.database import (
    Study,
    TrialState,
    begin_trial,
    default_storage_url,
    open_study,
    record_facts,
    release_trial,
)
from search.database.trial_facts import GOAL
from search.inference import Score
from search.samplers import make_sampler
from search.study import Plain, RandomSuggester, StudySpec, fill_leaves, load_spec


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="kbnet", help="whose search space")
    parser.add_argument("--sampler", help="instead of the study's own")
    parser.add_argument("--trials", type=int, default=2000, help="trials in the study before")
    parser.add_argument("--suggestions", type=int, default=10, help="trials that are timed")
    options = parser.parse_args()
    spec = load_spec(options.study)
    spec = spec.with_changes(sampler=options.sampler or spec.sampler)
    with tempfile.TemporaryDirectory() as folder:
        url = default_storage_url(Path(folder))
        open_study(spec, url, continue_with_changes=False, out=Path(folder)).add_trials(
            invented(spec, options.trials)
        )
        opened = open_study(spec, url, continue_with_changes=False, out=Path(folder))
        timed = [suggest(spec, opened) for _ in range(options.suggestions)]
    print(f"{options.trials} trials of {spec.name}, {options.suggestions} more, sampler {spec.sampler}")
    print("| | median | longest |\n| --- | --- | --- |")
    for name, seconds in zip(("seconds", "CPU seconds"), zip(*timed, strict=True), strict=True):
        print(f"| {name} | {statistics.median(seconds):.3f} | {max(seconds):.3f} |")


def suggest(spec: StudySpec, opened: Study) -> tuple[float, float]:
    """Seconds, and CPU seconds, for a new trial with all its settings. It is left waiting at the lowest rung."""
    lowest = spec.ladder.percents()[0]
    started, cpu = time.perf_counter(), time.process_time()
    trial = begin_trial(opened, 10**6, lambda number: make_sampler(spec, number))
    fill_leaves(spec.recipe, trial)
    took = time.perf_counter() - started, time.process_time() - cpu
    record_facts(trial, goal=lowest)
    trial.report(20.0, lowest)
    release_trial(opened, trial)
    return took


def invented(spec: StudySpec, number: int) -> list[FrozenTrial]:
    """Trials with random settings and scores, in the shares that a ladder leaves."""
    dice, trials = random.Random(0), []
    percents = spec.ladder.percents()
    for n in range(number):
        trial = Recorder(n)
        fill_leaves(spec.recipe, trial)
        rung = 0
        while rung < len(percents) - 1 and dice.random() < 1 / spec.ladder.factor:
            rung += 1
        scores = {percent: dice.uniform(20, 25) + percent / 20 for percent in percents[: rung + 1]}
        complete = rung == len(percents) - 1
        waits = not complete and n >= number - spec.keep
        trials.append(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.WAITING if waits else TrialState.PRUNED,
                value=scores[percents[-1]] if complete else None,
                params=trial.settings,
                distributions=trial.distributions,
                intermediate_values=dict(scores),
                user_attrs=attributes(percents[rung]),
            )
        )
    return trials


class Recorder:
    """A random suggester that keeps the values and distributions it has drawn."""

    def __init__(self, seed: int) -> None:
        self.random = RandomSuggester(seed)
        self.settings: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.distributions[name] = FloatDistribution(low, high, step=step, log=log)
        value = self.settings[name] = self.random.suggest_float(name, low, high, step=step, log=log)
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.distributions[name] = IntDistribution(low, high, step=step, log=log)
        value = self.settings[name] = self.random.suggest_int(name, low, high, step=step, log=log)
        return value

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Any:
        self.distributions[name] = CategoricalDistribution(choices)
        value = self.settings[name] = self.random.suggest_categorical(name, choices)
        return value


def attributes(rung: int) -> dict[str, Any]:
    """Attributes as long as those that a worker records with a trial."""
    scores = [asdict(Score(step=n, psnr_db=20.0, ssim=0.9, mae=0.01, seconds=1.0)) for n in range(8)]
    return {GOAL: rung, "rungs": json.dumps(scores), "config": "x" * 2000, "seconds": 60.0}


if __name__ == "__main__":
    main()
