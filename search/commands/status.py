"""The command `status`: progress and workers of studies."""

import argparse
import json
import time
from contextlib import suppress

from search.commands import flag_values, flags, output
from search.errors import UserError

REFRESH_S = 2.0


def add(commands: flags.Commands) -> None:
    status = commands.add_parser(
        "status",
        help="where studies stand, and who is at work on them",
        description="Show the studies of the database, or one of them: its trials by state, the workers and what each "
        "does, the best score so far, speed and time left. Workers may be anywhere.",
        epilog="examples:\n  python -m search status\n  python -m search status kbnet --watch",
        formatter_class=flags.Help,
    )
    flags.add_study(status, "the study to show (default: all)", required=False)
    manner = status.add_mutually_exclusive_group()
    flags.add_json(manner)
    manner.add_argument("--watch", action="store_true", help="show it anew every 2 s, until Ctrl-C")
    flags.add_locations(status)


def main(options: argparse.Namespace) -> int:
    from rich.live import Live

    from search.database import list_studies, load_study, open_database
    from search.manage import StudyStatus, show_status, status_table, study_status
    from search.terminal import Terminal

    given, console = vars(options), Terminal(highlight=False)
    if options.watch and not console.is_terminal:
        raise UserError("--watch needs a terminal; --json gives the same to programs")
    database = open_database(flag_values.database_url(options), create=False)
    name = flag_values.study_name(options.study) if "study" in given else None

    def look() -> list[StudyStatus]:
        studies = (
            [load_study(name, flag_values.database_url(options), of_anyone=True)]
            if name
            else list_studies(database)
        )
        return [study_status(study) for study in studies]

    if "json" in given:
        output.write_output(options.json, json.dumps([standing.to_json() for standing in look()], indent=2))
    elif options.watch:
        with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(status_table(look()), refresh=True)
                time.sleep(REFRESH_S)
    else:
        show_status(look(), console)
    return 0
