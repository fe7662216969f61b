"""Gain of a search by the faster operator: the same study with the published KBNet and with ours.

    python -m tests.benchmarks.gains --data DIR --timeout 20m

Both searches run at the same time, each on a core of its own with one thread, from the same seed, without
weights or scores of each other. "Published" is the operator, norm and block of tests/benchmarks/kernel_basis.py.
Steps a minute are over the time asked for, which a search exceeds if its last stretch ends late.
The score is that of the search, on the validation images that it looks at.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch

from search.database import TrialState, default_storage_url, load_study
from search.database.trial_facts import GOAL
from search.launch import run_in_process
from search.study import StudySpec, load_spec, parse_duration
from search.worker import RunOptions
from tests.benchmarks.kernel_basis import published_network

SIDES = ("published", "ours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--study", default="kbnet", help="whose space and budget")
    parser.add_argument("--timeout", type=parse_duration, default=1200.0, help="time of each search")
    parser.add_argument("--side", choices=SIDES, help="only this one, here; its facts are printed as JSON")
    parser.add_argument("--out", type=Path, help="keep the searches here")
    options = parser.parse_args()
    spec = load_spec(options.study).with_data(options.data, None, None)
    spec = spec.with_changes(timeout=options.timeout)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        if options.side:
            print(json.dumps(search(spec, options.side, out / options.side)))
        else:
            compare(sys.argv[1:], out)


def compare(typed: list[str], out: Path) -> None:
    """Both at the same time; one table."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(SIDES):
        raise SystemExit("two searches at the same time need two cores")
    running = []
    for side, core in zip(SIDES, cores, strict=False):
        command = [sys.executable, "-m", "tests.benchmarks.gains", *typed, "--side", side, "--out", str(out)]
        os.sched_setaffinity(0, {core})  # is passed on
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    os.sched_setaffinity(0, cores)
    print(
        "| search with | steps a minute | steps | trials begun | trained to the end | best (dB) | input (dB) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for side, process in zip(SIDES, running, strict=True):
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the search with {side} failed")
        facts = json.loads(said.splitlines()[-1])
        cells = [f"{facts[key]:.{digits}f}" for key, digits in COLUMNS.items()]
        print(f"| {side} | {' | '.join(cells)} |", flush=True)


COLUMNS = {"per_minute": 1, "steps": 0, "begun": 0, "complete": 0, "best_db": 2, "input_db": 2}
"""Printed values of a search, and their number of digits."""


def search(spec: StudySpec, side: str, out: Path) -> dict[str, float]:
    """Run the study in this process."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    how = RunOptions(storage=default_storage_url(out), out=out, device=torch.device("cpu"), quiet=True)
    with published_network() if side == "published" else nullcontext():
        outcome = run_in_process(spec, how)
    trials = load_study(spec.name, how.storage).get_trials(deepcopy=False)
    steps = sum(trial.user_attrs.get("steps_done", 0) for trial in trials)
    return {
        "per_minute": 60 * steps / spec.timeout,
        "steps": steps,
        "begun": sum(GOAL in trial.user_attrs for trial in trials),
        "complete": sum(trial.state == TrialState.COMPLETE for trial in trials),
        "best_db": outcome.best_psnr_db,
        "input_db": outcome.input_psnr_db,
    }


if __name__ == "__main__":
    main()
