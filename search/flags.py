"""What the command line accepts, and what its help says."""

import argparse
from pathlib import Path
from typing import Any, NoReturn


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command and its flags; flags left out are not there, except those with a default of their own."""
    return _parser().parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """A mistyped flag gets one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults beside flags, and examples as they are written."""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m search",
        description="Find the best image-restoration model for a folder of paired images.",
        epilog="start here:\n  python -m search run --study kbnet\n  python -m search export-best --study kbnet",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="search, or go on searching",
        description="Search for the best recipe, then train it at length. The same command goes on where it stopped.",
        epilog="example:\n  python -m search run --study kbnet --data my_pairs --timeout 1h",
        formatter_class=_Help,
    )
    flag = _adder(run)
    flag(
        "--study",
        "NAME|FILE",
        "a shipped study (see `python -m search studies`), or a .toml file",
        required=True,
    )
    flag("--name", "NAME", "name of the study in the database (default: the one in its file)")
    _add_data(run)
    flag(
        "--trials",
        "N",
        "trials in the whole study, the finale not counted (default: as the study says)",
        type=int,
    )
    flag("--timeout", "TIME", "time of this run: 90s, 20m, 1h30m (default: as the study says)")
    flag("--trial-timeout", "TIME", "longest time of one trial (default: as the study says)")
    _add_conduct(run)
    run.add_argument(
        "--continue-with-changes", action="store_true", help="go on though the recipe has changed"
    )
    _add_places(run)

    compare = commands.add_parser(
        "compare",
        help="give several studies equal time and rank their winners",
        description="Give every study the same training time, judge the winners on the same images, and write a "
        "ranking with intervals. The same command goes on where it stopped.",
        epilog="example:\n  python -m search compare --studies kbnet,srresnet --data my_pairs --budget 10m",
        formatter_class=_Help,
    )
    flag = _adder(compare)
    flag("--studies", "NAME|FILE,...", "shipped studies or .toml files, separated by commas", required=True)
    compare.add_argument(
        "--budget",
        default="10m",
        metavar="TIME",
        help="training time of each study, earlier runs included: 90s, 20m, 1h30m; 0 compares what there is",
    )
    flag(
        "--label",
        "NAME",
        "compare studies called STUDY-NAME, so that one database holds comparisons on several folders "
        "(default: none)",
    )
    _add_data(compare)
    flag(
        "--test",
        "DIR",
        "pairs to judge by: DIR/{scan,clean} (default: the validation pairs)",
        type=Path,
    )
    compare.add_argument(
        "--force", action="store_true", help="judge by test images though training or validation has them"
    )
    flag(
        "--groups",
        "FILE|PATTERN",
        "which images share a page or scene: a CSV file with columns name,group, or a pattern whose capture "
        "group finds it in the name, as 'page(\\d+)' (default: none do)",
    )
    flag("--to", "DIR", "folder of the ranking (default: OUT/compare, or OUT/compare-LABEL)", type=Path)
    _add_conduct(compare)
    _add_places(compare)

    export = commands.add_parser(
        "export-best",
        help="write the best model as files that other programs load",
        description="Validate the best trial again, then write its weights, ONNX, settings and model card.",
        epilog="example:\n  python -m search export-best --study kbnet --to my_model",
        formatter_class=_Help,
    )
    flag = _adder(export)
    flag("--study", "NAME|FILE", "a study that has a finished trial", required=True)
    flag("--to", "DIR", "folder to write (default: OUT/STUDY/export)", type=Path)
    _add_places(export)

    commands.add_parser(
        "studies",
        help="list the shipped studies",
        description="List the shipped studies with a line each.",
        epilog="example:\n  python -m search studies",
        formatter_class=_Help,
    )
    return parser


def _adder(parser: argparse.ArgumentParser) -> Any:
    """Adds flags whose default is told in words: argparse must not print "(default: None)" as well."""

    def add(name: str, metavar: str, text: str, **options: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, default=argparse.SUPPRESS, **options)

    return add


def _add_data(parser: argparse.ArgumentParser) -> None:
    flag = _adder(parser)
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{train,val}/{scan,clean} or DIR/{scan,clean} (default: what the study says; shipped ones: a demo)",
        type=Path,
    )
    flag("--scan-dir", "NAME", "folder of degraded images inside DIR (default: scan, noisy, lq, input, ...)")
    flag("--clean-dir", "NAME", "folder of clean images inside DIR (default: clean, gt, hq, target, ...)")


def _add_conduct(parser: argparse.ArgumentParser) -> None:
    _adder(parser)("--seed", "N", "seed of sampler and trials (default: as the study says)", type=int)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    _adder(parser)(
        "--memory",
        "SIZE",
        "memory that may be used on the CPU, as 6G or 800M: larger batches go in parts (default: no limit)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="where everything is kept"
    )
    _adder(parser)(
        "--storage", "URL", "database: sqlite:///FILE, postgresql://... (default: sqlite:///OUT/search.db)"
    )
