"""The command `run`: search, or go on searching."""

import argparse
from typing import TYPE_CHECKING

from search.commands import endings, flags, readings

if TYPE_CHECKING:
    from search.run import Outcome


def add(commands: flags.Commands) -> None:
    run = commands.add_parser(
        "run",
        help="search, or go on searching",
        description="Search for the best recipe, then train it at length. The same command goes on where it stopped.",
        epilog="example:\n  python -m search run --study kbnet --data my_pairs --timeout 1h",
        formatter_class=flags.Help,
    )
    flag = flags.adder(run)
    flag(
        "--study",
        "NAME|FILE",
        "a shipped study (see `python -m search studies`), or a .toml file",
        required=True,
    )
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
    flags.add_conduct(run, "auto (every GPU, or the CPU), cpu, cuda:N, or several: cuda:0,cuda:1")
    run.add_argument(
        "--continue-with-changes", action="store_true", help="go on though the recipe has changed"
    )
    flags.add_places(run)


def main(options: argparse.Namespace) -> int:
    from search import crew, storage

    spec = readings.spec(
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
    devices = readings.devices(options.device, vars(options).get("workers"))
    outcome = crew.run(spec, readings.how(options, devices[0]), devices)
    storage.remember_command(storage.load_study(spec.name, readings.url(options)), options.typed)
    if not options.quiet:
        _say_what_next(options, spec.name, outcome)
    return endings.INTERRUPTED if outcome.stopped else 0


def _say_what_next(options: argparse.Namespace, name: str, outcome: "Outcome") -> None:
    if outcome.best_number is None:
        print("no trial has finished yet")
    else:
        gain = outcome.best_psnr_db - outcome.input_psnr_db
        print(
            f"best: trial {outcome.best_number}, {outcome.best_psnr_db:.2f} dB ({gain:+.2f} over the input)"
        )
    if outcome.stopped:
        endings.say_how_to_go_on()
    elif outcome.best_number is not None:
        places = endings.places(options)
        print(f"next: python -m search export-best --study {name}{places}")
        print(f"      python -m search report {name}{places}")
        print(f"      python -m search dashboard {name}{places}")
