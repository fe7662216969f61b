"""Predictions of `plan`, compared with the search that follows.

    python -m tests.benchmarks.plan --data DIR --studies dncnn,kbnet,classical --timeout 10m --workers 1

Each study is planned, then run for that time by so many workers on a quiet machine; one table for each.
`in range` says whether the search lies in the range of nine of ten simulated searches.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from search.database import FrozenTrial, TrialState, default_storage_url, load_study
from search.database.trial_facts import GOAL
from search.launch import run_with_workers, share_cores
from search.plan import make_plan
from search.plan.table import Range90
from search.scheduler import TOP
from search.study import StudySpec, load_spec, parse_duration
from search.worker import RunOptions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pairs")
    parser.add_argument("--studies", default="dncnn,kbnet,classical", help="separated by commas")
    parser.add_argument("--timeout", type=parse_duration, default=600.0, help="time of each search")
    parser.add_argument("--workers", type=int, default=1, help="processes of each search")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, dealt out to the workers")
    parser.add_argument("--out", type=Path, help="keep the searches here, for export-best")
    options = parser.parse_args()
    for name in options.studies.split(","):
        spec = load_spec(name).with_data(options.data, None, None).with_changes(timeout=options.timeout)
        with tempfile.TemporaryDirectory() as folder:
            devices = (torch.device(options.device),) * options.workers
            compare(spec, devices, options.out or Path(folder))


def compare(spec: StudySpec, devices: tuple[torch.device, ...], out: Path) -> None:
    """Plan, run, print."""
    out.mkdir(parents=True, exist_ok=True)
    how = RunOptions(storage=default_storage_url(out), out=out, device=devices[0], quiet=True)
    threads = torch.get_num_threads()
    share_cores(devices)
    started = time.monotonic()
    predicted = make_plan(spec, how, Console(quiet=True), devices[1:])
    planning = time.monotonic() - started
    torch.set_num_threads(threads)
    started = time.monotonic()
    outcome = run_with_workers(spec, how, devices)
    torch.set_num_threads(threads)
    seconds = time.monotonic() - started
    trials = load_study(spec.name, how.storage).get_trials(deepcopy=False)
    best = [trial for trial in trials if trial.number == outcome.best_number]
    bought = predicted.bought
    rows = [
        ("time (s)", bought.seconds, seconds),
        ("trials begun", bought.begun, sum(GOAL in trial.user_attrs for trial in trials)),
        *(
            (
                f"reach {percent} %" if percent < TOP else "trained to the end",
                found,
                sum(percent in trial.intermediate_values or _complete(trial, percent) for trial in trials),
            )
            for percent, found in bought.reached.items()
        ),
        ("steps of the winner", bought.winner_steps, best[0].user_attrs["steps"] if best else 0),
    ]
    workers = f"{len(devices)} worker" + "s" * (len(devices) > 1)
    print(
        f"\n{spec.name}, {workers}, planned in {planning:.0f} s, {predicted.recipes_measured} recipes measured\n"
    )
    print("| | foretold | 9 of 10 | reality | in range | off by |\n| --- | --- | --- | --- | --- | --- |")
    for heading, found, reality in rows:
        print(f"| {heading} | {_row(found, reality)} |", flush=True)


def _complete(trial: FrozenTrial, percent: int) -> bool:
    return percent == TOP and trial.state == TrialState.COMPLETE


def _row(found: Range90, reality: float) -> str:
    within = "yes" if found.low <= reality <= found.high else "no"
    off = f"{found.median / reality - 1:+.0%}" if reality else "-"
    return f"{found.median:.0f} | {found.low:.0f} to {found.high:.0f} | {reality:.0f} | {within} | {off}"


if __name__ == "__main__":
    main()
