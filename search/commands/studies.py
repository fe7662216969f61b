"""The command `studies`: lists the studies that come with the program."""

import argparse

from search.commands import flags


def add(commands: flags.Commands) -> None:
    commands.add_parser(
        "studies",
        help="list the shipped studies",
        description="List the shipped studies with a line each.",
        epilog="example:\n  python -m search studies",
        formatter_class=flags.Help,
    )


def main(options: argparse.Namespace) -> int:
    from search.study import shipped_specs

    specs = shipped_specs()
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        print(f"{spec.name:<{width}}  {spec.description}")
    return 0
