"""The command `check`: finds faults in a folder of pairs."""

import argparse

from search.commands import flags


def add(commands: flags.Commands) -> None:
    check = commands.add_parser(
        "check",
        help="find what is wrong with a folder of pairs",
        description="Look for everything in a folder of pairs that would spoil a search or cost quality: missing "
        "partners, damaged files, sides that do not fit, images that training and validation share. Nothing in the "
        "folder is changed. Exit code 1 if something would spoil a search.",
        epilog="examples:\n  python -m search check my_pairs --html faults.html\n"
        "  python -m search check my_pairs --fix mended --groups 'page(\\d+)'",
        formatter_class=flags.Help,
    )
    check.add_argument(
        "folder", type=flags.path, metavar="DIR", help="DIR/{train,val}/{scan,clean} or DIR/{scan,clean}"
    )
    flag = flags.flag_adder(check)
    flags.add_side_folders(flag)
    flag("--json", "FILE|-", "write all findings as JSON (- for the terminal, in place of the text)")
    flag("--html", "FILE", "write a page with the pictures in question", type=flags.path)
    flag(
        "--fix",
        "OUT",
        "write a mended copy with train and val, split so that no page or scene is in both; OUT/what-was-done.txt "
        "says what was done",
        type=flags.path,
    )
    flag(
        "--groups",
        "FILE|PATTERN",
        "with --fix, what must stay together besides what is found: as for compare --groups",
        type=flags.file_or_else,
    )
    flag("--jobs", "N", "processes (default: all cores)", type=int)
    check.add_argument("--quiet", action="store_true", help="print errors only; the exit code tells")


def main(options: argparse.Namespace) -> int:
    from search.datacheck import CheckOptions, run_check

    given = vars(options)
    return run_check(
        CheckOptions(**{name: given[name] for name in CheckOptions.__annotations__ if name in given})
    )
