"""How a command ends: its exit codes, what it gives to other programs, and what it says can be typed next."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def say_how_to_go_on() -> None:
    from search.database import command_without_passwords

    print(f"stopped; go on with: python -m search {command_without_passwords(shlex.join(sys.argv[1:]))}")


def say_last_command(typed: Sequence[str]) -> None:
    """Of those typed to work on a study, the one that goes on with it; nothing where none is known."""
    from search.database import command_without_passwords

    if typed:
        print(f"go on with: {command_without_passwords(typed[-1])}")


def write(target: str, text: str) -> None:
    """For other programs: to the file `target`, or for - to the terminal."""
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def places(options: argparse.Namespace) -> str:
    """The flags that lead another command to the same places; nothing where these are the default ones."""
    from search.database import without_password

    out = f" --out {shlex.quote(str(options.out))}" if options.out != Path("runs") else ""
    given = vars(options)
    return out + (
        f" --storage {shlex.quote(without_password(given['storage']))}" if "storage" in given else ""
    )
