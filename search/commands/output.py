"""The end of a command: its exit codes, its output for other programs, and the next command that it suggests."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def print_how_to_continue() -> None:
    from search.database import command_without_passwords

    print(f"stopped; go on with: python -m search {command_without_passwords(shlex.join(sys.argv[1:]))}")


def print_last_command(typed: Sequence[str]) -> None:
    """Print the recorded command that continues a study; nothing where none is recorded."""
    from search.database import command_without_passwords

    if typed:
        print(f"go on with: {command_without_passwords(typed[-1])}")


def write_output(target: str, text: str) -> None:
    """Write output for other programs to the file `target`, or for - to the terminal."""
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def location_flags(options: argparse.Namespace) -> str:
    """The flags that give another command the same database and folder; empty where they are the default ones."""
    from search.database import without_password

    out = f" --out {shlex.quote(str(options.out))}" if options.out != Path("runs") else ""
    given = vars(options)
    return out + (
        f" --storage {shlex.quote(without_password(given['storage']))}" if "storage" in given else ""
    )
