"""The command line: parses, calls, prints. Torch is imported only inside a command."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from search.errors import UserError

if TYPE_CHECKING:
    import torch

    from search.run import Outcome

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 a mistake of the user's, 130 stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    # Read once, when torch loads. Threads that spin for long hold up whoever shares their cores, those
    # that never spin lose on an idle machine: a short spin is a compromise (tests/benchmarks/busy.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        return int(options.function(options))
    except UserError as error:
        print(f"search {options.command}: {error}", file=sys.stderr)
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
            f"search {options.command}: {error.filename or 'file'}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 2


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
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{train,val}/{scan,clean} or DIR/{scan,clean} (default: what the study says; shipped ones: a demo)",
        type=Path,
    )
    flag("--scan-dir", "NAME", "folder of degraded images inside DIR (default: scan, noisy, lq, input, ...)")
    flag("--clean-dir", "NAME", "folder of clean images inside DIR (default: clean, gt, hq, target, ...)")
    flag(
        "--trials",
        "N",
        "trials in the whole study, the finale not counted (default: as the study says)",
        type=int,
    )
    flag("--timeout", "TIME", "time of this run: 90s, 20m, 1h30m (default: as the study says)")
    flag("--seed", "N", "seed of sampler and trials (default: as the study says)", type=int)
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    run.add_argument(
        "--continue-with-changes", action="store_true", help="go on though the recipe has changed"
    )
    run.add_argument("--quiet", action="store_true", help="print errors only")
    _add_places(run)
    run.set_defaults(function=_run)

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
    export.set_defaults(function=_export_best)

    listing = commands.add_parser(
        "studies",
        help="list the shipped studies",
        description="List the shipped studies with a line each.",
        epilog="example:\n  python -m search studies",
        formatter_class=_Help,
    )
    listing.set_defaults(function=_studies)
    return parser


def _adder(parser: argparse.ArgumentParser) -> Any:
    """Adds flags whose default is told in words: argparse must not print "(default: None)" as well."""

    def add(name: str, metavar: str, text: str, **options: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, default=argparse.SUPPRESS, **options)

    return add


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="where everything is kept"
    )
    _adder(parser)(
        "--storage", "URL", "database: sqlite:///FILE, postgresql://... (default: sqlite:///OUT/search.db)"
    )


def _run(options: argparse.Namespace) -> int:
    from data import DataError
    from search import run, space, storage, study

    given = vars(options)
    spec = study.load(options.study)
    changes: dict[str, object] = {
        key: given[key] for key in ("name", "trials", "timeout", "seed") if key in given
    }
    spec = study.with_flags(spec, changes)
    if "data" in given:
        spec = spec.with_data(options.data, given.get("scan_dir"), given.get("clean_dir"))
    elif given.keys() & {"scan_dir", "clean_dir"}:
        raise UserError("--scan-dir and --clean-dir name folders inside --data DIR, which is missing")
    try:
        outcome = run.run(
            spec,
            run.Options(
                storage=given.get("storage") or storage.default_url(options.out),
                out=options.out,
                device=_device(options.device),
                quiet=options.quiet,
                continue_with_changes=options.continue_with_changes,
            ),
        )
    except (DataError, space.SpaceError) as error:
        raise UserError(str(error)) from None
    if not options.quiet:
        _say_what_next(options, spec.name, outcome)
    return INTERRUPTED if outcome.stopped else 0


def _export_best(options: argparse.Namespace) -> int:
    from data import DataError
    from search import export, storage, study

    given = vars(options)
    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    url = given.get("storage") or storage.default_url(options.out)
    try:
        export.best(name, url, options.out, given.get("to") or options.out / name / "export")
    except DataError as error:
        raise UserError(str(error)) from None
    return 0


def _studies(options: argparse.Namespace) -> int:
    from search import study

    specs = study.shipped()
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        print(f"{spec.name:<{width}}  {spec.description}")
    return 0


def _say_what_next(options: argparse.Namespace, name: str, outcome: "Outcome") -> None:
    from search import storage

    given = vars(options)
    if outcome.best_number is None:
        print("no trial has finished yet")
    else:
        gain = outcome.best_psnr_db - outcome.input_psnr_db
        print(
            f"best: trial {outcome.best_number}, {outcome.best_psnr_db:.2f} dB ({gain:+.2f} over the input)"
        )
    if outcome.stopped:
        print(f"stopped; go on with: python -m search {shlex.join(sys.argv[1:])}")
    elif outcome.best_number is not None:
        places = f" --out {shlex.quote(str(options.out))}" if options.out != Path("runs") else ""
        places += f" --storage {shlex.quote(given['storage'])}" if "storage" in given else ""
        url = given.get("storage") or storage.default_url(options.out)
        print(f"next: python -m search export-best --study {name}{places}")
        print(
            f"      optuna-dashboard {shlex.quote(url)} --artifact-dir {shlex.quote(str(options.out / 'artifacts'))}"
        )


def _device(name: str) -> "torch.device":
    """The device of that name, if this machine has it."""
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        name = there[-1] if len(there) == 1 else "cuda:0"
    if name not in there and not (name == "cuda" and len(there) > 1):
        raise UserError(f"--device {name}: not on this machine; there are auto, {', '.join(there)}")
    return torch.device("cuda:0" if name == "cuda" else name)


if __name__ == "__main__":
    sys.exit(main())
