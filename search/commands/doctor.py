"""The command `doctor`: checks whether a search can run on this machine."""

import argparse
import json
from dataclasses import asdict

from search.commands import flag_values, flags, output

STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def add(commands: flags.Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="whether this machine is fit for a search",
        description="Look at the database, disk, memory, devices, half precision (measured), compiled code and the "
        "libraries, a line for each finding: ok, note, or wrong. Exit code 1 if something is wrong.",
        epilog="example:\n  python -m search doctor",
        formatter_class=flags.Help,
    )
    flags.add_json(doctor)
    flags.add_locations(doctor)


def main(options: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from search.manage import DOCTOR_TOPICS, examine_machine
    from search.terminal import Terminal

    target = vars(options).get("json")
    console, found = Terminal(highlight=False, quiet=target == "-"), []
    for finding in examine_machine(flag_values.database_url(options), options.out):
        found.append(finding)
        line = Table.grid(padding=(0, 2))
        line.add_column(width=5)
        line.add_column(width=max(map(len, DOCTOR_TOPICS)))
        line.add_column(overflow="fold")
        line.add_row(Text(finding.level, STYLES[finding.level]), finding.topic, Text(finding.text))
        console.print(line)
    if target is not None:
        output.write_output(target, json.dumps([asdict(finding) for finding in found], indent=2))
    wrong = sum(finding.level == "wrong" for finding in found)
    console.print(f"{wrong} wrong" if wrong else "nothing is wrong")
    return int(bool(wrong))
