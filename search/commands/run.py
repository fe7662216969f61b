"""The command `run`: starts or continues a search."""

import argparse
import shlex
from typing import TYPE_CHECKING

from search.commands import flag_values, flags, output
from search.errors import UserError

if TYPE_CHECKING:
    from search.launch import SearchOutcome
    from search.study import StudySpec


def add(commands: flags.Commands) -> None:
    run = commands.add_parser(
        "run",
        help="search, or go on searching",
        description="Search for the best recipe, then train it at length. The same command goes on where it stopped.",
        epilog="example:\n  python -m search run --study kbnet --data my_pairs --timeout 1h",
        formatter_class=flags.Help,
    )
    flags.add_study(run, "a shipped study (see `python -m search studies`), or a .toml file")
    flag = flags.flag_adder(run)
    flag("--name", "NAME", "name of the study in the database (default: the one in its file)")
    flags.add_data(run)
    flag(
        "--trials",
        "N",
        "trials in the whole study, the finale not counted (default: as the study says)",
        type=int,
    )
    flags.add_timeout(run, "time of this run")
    flag(
        "--confirm-seeds",
        "N",
        "train the finalists again from N new seeds, judge them on images that scored no trial, and go on with the "
        "best mean (default: as the study says)",
        type=int,
    )
    flag("--finalists", "K", "how many are trained again (default: as the study says)", type=int)
    flag("--trial-timeout", "TIME", "longest time of one trial (default: as the study says)")
    flag(
        "--warm-start",
        "STUDY",
        "carry on from another study of the same database: its three best recipes first, and its trials shown to "
        "the sampler where they compare (default: start afresh)",
    )
    flag(
        "--workers",
        "N",
        "processes that train at the same time, dealt out to the devices; those on the CPU share its cores "
        "(default: one for each device)",
        type=int,
    )
    flag(
        "--cluster",
        "ADDRESS",
        "put the workers on a Ray cluster: ray://HOST:PORT, auto (the one that this machine is part of) or local; "
        "several machines need --storage postgresql://... (default: processes of this machine)",
    )
    flag(
        "--gpus-per-worker",
        "SHARE",
        "with --cluster: GPUs, or the part of one, for each worker (default: 1; where there are none, CPUs)",
        type=float,
    )
    flags.add_search_flags(run, "auto (every GPU, or the CPU), cpu, cuda:N, or several: cuda:0,cuda:1")
    run.add_argument(
        "--continue-with-changes", action="store_true", help="go on though the recipe has changed"
    )
    flags.add_locations(run)


def main(options: argparse.Namespace) -> int:
    spec = flag_values.study_spec(
        options.study,
        options,
        "name",
        "trials",
        "timeout",
        "trial_timeout",
        "confirm_seeds",
        "finalists",
        "seed",
    )
    outcome = _search(spec, options)
    if not options.quiet:
        _print_next_steps(options, spec.name, outcome)
    return output.INTERRUPTED if outcome.stopped else 0


def _search(spec: "StudySpec", options: argparse.Namespace) -> "SearchOutcome":
    """Search with worker processes on this machine, or on a cluster."""
    from search.launch import run_with_workers

    given = vars(options)
    devices = flag_values.devices(options.device, given.get("workers"))
    how = flag_values.run_options(options, devices[0])
    if "cluster" not in given:
        if "gpus_per_worker" in given:
            raise UserError("--gpus-per-worker is for workers on a cluster; --cluster ADDRESS is missing")
        return run_with_workers(spec, how, devices)
    from search.launch import ClusterOptions, run_on_cluster

    share = given.get("gpus_per_worker", 1.0)
    if share <= 0:
        raise UserError(f"--gpus-per-worker {share}: must be above 0")
    cluster = ClusterOptions(options.cluster, given.get("workers"), share, options.device == "cpu")
    return run_on_cluster(spec, how, cluster)


def _print_next_steps(options: argparse.Namespace, name: str, outcome: "SearchOutcome") -> None:
    if outcome.best_number is None:
        print("no trial has finished yet")
    else:
        gain = outcome.best_psnr_db - outcome.input_psnr_db
        print(
            f"best: trial {outcome.best_number}, {outcome.best_psnr_db:.2f} dB ({gain:+.2f} over the input)"
        )
    if outcome.stopped:
        output.print_how_to_continue()
    elif outcome.best_number is not None:
        places, name = output.location_flags(options), shlex.quote(name)
        print(f"next: python -m search export-best --study {name}{places}")
        print(f"      python -m search report {name}{places}")
        print(f"      python -m search dashboard {name}{places}")
