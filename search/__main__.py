"""The command line: the list of commands, and what a mistake gets. Torch is imported only inside a command."""

import argparse
import importlib.metadata
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Protocol

from search.commands import (
    check,
    compare,
    dashboard,
    delete,
    doctor,
    evaluate,
    export_best,
    flags,
    mattered,
    pareto,
    plan,
    report,
    restore,
    retry,
    run,
    status,
    stop,
    studies,
    trials,
    worker,
)
from search.commands.output import INTERRUPTED
from search.errors import UserError, closest
from search.text import printable


class Command(Protocol):
    """A file of search/commands."""

    def add(self, commands: flags.Commands) -> None:
        """Say what it is called, which flags it has, and what its help says."""

    def main(self, options: argparse.Namespace) -> int:
        """Do it; the exit code."""


# In the order of the help.
COMMANDS: dict[str, Command] = {
    "run": run,
    "compare": compare,
    "export-best": export_best,
    "check": check,
    "restore": restore,
    "evaluate": evaluate,
    "plan": plan,
    "pareto": pareto,
    "mattered": mattered,
    "report": report,
    "trials": trials,
    "dashboard": dashboard,
    "studies": studies,
    "worker": worker,
    "status": status,
    "stop": stop,
    "retry": retry,
    "delete": delete,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 a mistake of the user's, 130 stopped by Ctrl-C."""
    options = parse(arguments)
    # Read once, when torch loads. Threads that spin for long hold up whoever shares their cores, those
    # that never spin lose on an idle machine: a short spin is a compromise (tests/benchmarks/busy.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        from search.terminal import printable_output

        with _user_errors(), printable_output():
            return COMMANDS[options.command].main(options)
    except UserError as error:
        print(printable(f"search {options.command}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (as `| head` does); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(
            printable(f"search {options.command}: {error.filename or 'file'}: {error.strerror or error}"),
            file=sys.stderr,
        )
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command and its flags; flags left out are not there, except those with a default of their own.

    `typed` is the whole line.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    parser = _Parser(
        prog="python -m search",
        description="Find the best image-restoration model for a folder of paired images.",
        epilog="start here:\n  python -m search run --study kbnet\n  python -m search export-best --study kbnet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version; --version -v: and what it runs on"
    )
    parser.add_argument("-v", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.add(commands)
    if typed and typed[0] in commands.choices:
        commands.choices[typed[0]].refuse_unknown_flags(typed[1:])
    options = parser.parse_args(
        typed, argparse.Namespace(typed=shlex.join(["python", "-m", "search", *typed]))
    )
    if "v" in options:
        parser.error("-v goes with --version")
    return options


class _Version(argparse.Action):
    """Prints the version and ends; with -v also what it stands on, the devices and how KBNet's operator runs."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object
    ) -> NoReturn:
        print(f"restune {importlib.metadata.version('restune')}")
        if "-v" in shlex.split(namespace.typed):
            from search.manage import check_devices, check_operator, check_versions

            for check in (check_versions, check_devices, check_operator):
                for finding in check():
                    print(f"{finding.topic}: {finding.text}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A mistyped flag gets one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")

    def refuse_unknown_flags(self, words: Sequence[str]) -> None:
        """Name the flag that is mistyped: what follows it would be taken for something else, and that be named."""
        known = self._option_string_actions
        for word in itertools.takewhile(lambda word: word != "--", words):
            flag = word.split("=")[0]
            if flag.startswith("--") and not any(name.startswith(flag) for name in known):
                self.error(f"unknown flag {flag}{closest(flag, list(known))}")


@contextmanager
def _user_errors() -> Iterator[None]:
    """What is wrong with images or a search space is a mistake of the user's."""
    from data.files import DataError
    from search.study import SpaceError

    try:
        yield
    except (DataError, SpaceError) as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
