"""Number of rungs in a short search: the same studies with ladders of different heights.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.rungs --data DIR --studies srresnet,unet --rungs 2,3,4 --timeout 6m

One search after another. `fewest` is the steps of the study's first recipe up to the lowest rung; the score
is that of the search, on the validation images that it looks at.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from search.database import default_storage_url, load_study
from search.database.trial_facts import GOAL
from search.launch import run_in_process
from search.study import StudySpec, load_spec, parse_duration
from search.worker import RunOptions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--studies", default="srresnet,unet,kbnet", help="separated by commas")
    parser.add_argument("--rungs", default="2,3,4", help="separated by commas")
    parser.add_argument("--timeout", type=parse_duration, default=360.0, help="time of each search")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| study | rungs | fewest | trials begun | steps of the winner | best (dB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.studies.split(","):
        spec = load_spec(name).with_data(options.data, None, None)
        spec = spec.with_changes(timeout=options.timeout, seed=options.seed)
        for rungs in map(int, options.rungs.split(",")):
            ladder = spec.ladder.model_copy(update={"rungs": rungs, "fewest_steps": 0})
            print(f"| {name} | {rungs} | {search(spec.with_changes(ladder=ladder))} |", flush=True)


def search(spec: StudySpec) -> str:
    """Run the study; the cells of its row."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        how = RunOptions(storage=default_storage_url(out), out=out, device=torch.device("cpu"), quiet=True)
        outcome = run_in_process(spec, how)
        trials = load_study(spec.name, how.storage).get_trials(deepcopy=False)
    best = next(trial for trial in trials if trial.number == outcome.best_number)
    begun = sum(GOAL in trial.user_attrs for trial in trials)
    fewest = round(trials[0].user_attrs["steps"] * spec.ladder.shares()[0])
    return f"{fewest} | {begun} | {best.user_attrs['steps_done']} | {outcome.best_psnr_db:.2f}"


if __name__ == "__main__":
    main()
