"""How a command ends: its exit codes, and what it says can be typed next."""

import argparse
import shlex
import sys
from pathlib import Path

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def say_how_to_go_on() -> None:
    print(f"stopped; go on with: python -m search {shlex.join(sys.argv[1:])}")


def places(options: argparse.Namespace) -> str:
    """The flags that lead another command to the same places; nothing where these are the default ones."""
    out = f" --out {shlex.quote(str(options.out))}" if options.out != Path("runs") else ""
    given = vars(options)
    return out + (f" --storage {shlex.quote(given['storage'])}" if "storage" in given else "")
