"""The command `delete`: deletes a study, its trials and its files."""

import argparse
import sys

from search.commands import flag_values, flags
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    delete = commands.add_parser(
        "delete",
        help="delete a study with its trials and files",
        description="Say what would go, ask, and delete a study: its trials in the database, its folder with states, "
        "weights, exports and reports, its pictures. Pairs of images are never touched.",
        epilog="example:\n  python -m search delete kbnet",
        formatter_class=flags.Help,
    )
    flags.add_study(delete)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    flags.add_locations(delete)


def main(options: argparse.Namespace) -> int:
    from search.database import load_study
    from search.manage import delete_study, refuse_at_work, study_contents

    study = load_study(flag_values.study_name(options.study), flag_values.database_url(options))
    refuse_at_work(study)
    found = study_contents(study, options.out)
    print(found)
    if not options.yes:
        if not sys.stdin.isatty():
            raise UserError("nobody is there to be asked; --yes deletes all of that")
        if input("delete all of that? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 1
    delete_study(study, found)
    print(f"{found.study} is deleted")
    return 0
