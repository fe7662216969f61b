"""The command `trials`: a study's trials as a table."""

import argparse
import sys

from search.commands import flag_values, flags


def add(commands: flags.Commands) -> None:
    trials = commands.add_parser(
        "trials",
        help="list the trials of a study",
        description="List the trials of a study with their scores, times and settings, the best first.",
        epilog="example:\n  python -m search trials kbnet --sort seconds",
        formatter_class=flags.Help,
    )
    flags.add_study(trials)
    trials.add_argument("--all", action="store_true", help="all of them, not just 20 (csv always has all)")
    trials.add_argument(
        "--sort", choices=("psnr", "number", "seconds"), default="psnr", help="best, first or longest on top"
    )
    trials.add_argument("--format", choices=("table", "csv", "md"), default="table", help="what is printed")
    flags.add_locations(trials)


def main(options: argparse.Namespace) -> int:
    from search.analysis import FEW_TRIALS, show_trials, sort_trials, trials_csv, trials_markdown
    from search.database import best_record, load_study, read_records, why_not_ours
    from search.terminal import Terminal

    name = flag_values.study_name(options.study)
    study = load_study(name, flag_values.database_url(options), of_anyone=True)
    if why := why_not_ours(study):
        print(f"study {name!r} is {why}", file=sys.stderr)
    found = read_records(study)
    best, shown = best_record(found), sort_trials(found, options.sort)
    most = None if options.all else FEW_TRIALS
    if options.format == "csv":
        print(trials_csv(shown, best), end="")
    elif options.format == "md":
        print(trials_markdown(shown, best, most))
    elif shown:
        show_trials(shown, Terminal(highlight=False), best, most)
    else:
        print(f"study {name!r} has no trials yet")
    return 0
