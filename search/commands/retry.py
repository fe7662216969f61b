"""The command `retry`: queues failed trials again."""

import argparse

from search.commands import flag_values, flags, output
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    retry = commands.add_parser(
        "retry",
        help="try trials again that failed",
        description="Queue trials again that failed, ran out of memory or diverged: as new trials with the same "
        "settings. A search that is running takes them at once, else the next one.",
        epilog="examples:\n  python -m search retry kbnet 4 7\n  python -m search retry kbnet --failed",
        formatter_class=flags.Help,
    )
    flags.add_study(retry)
    flags.flag_adder(retry)("numbers", "N", "numbers of trials", nargs="*", type=int)
    retry.add_argument("--failed", action="store_true", help="all that failed and were not tried again")
    flags.add_locations(retry)


def main(options: argparse.Namespace) -> int:
    from search.database import load_study, study_facts_of
    from search.manage import failed_trials, retry_trials, workers_at_work

    numbers = vars(options).get("numbers", [])
    if not numbers and not options.failed:
        raise UserError("name the trials by their numbers, or give --failed")
    name = flag_values.study_name(options.study)
    study = load_study(name, flag_values.database_url(options))
    made = retry_trials(study, [*numbers, *(failed_trials(study) if options.failed else ())])
    for number, again in made.items():
        print(f"trial {number} is tried again as trial {again}")
    if not made:
        print(f"nothing in {name} is left to be tried again")
    elif not workers_at_work(study):
        output.print_last_command(study_facts_of(study).commands)
    return 0
