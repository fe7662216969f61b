"""What the command line accepts, and what its help says."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command and its flags; flags left out are not there, except those with a default of their own.

    `typed` is the whole line.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    return _parser().parse_args(
        typed, argparse.Namespace(typed=shlex.join(["python", "-m", "search", *typed]))
    )


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
    _add_timeout(run, "time of this run")
    flag(
        "--confirm-seeds",
        "N",
        "train the finalists again from N new seeds, judge them on images that scored no trial, and go on with the "
        "best mean (default: as the study says)",
        type=int,
    )
    flag("--finalists", "K", "how many are trained again (default: as the study says)", type=int)
    flag("--trial-timeout", "TIME", "longest time of one trial (default: as the study says)")
    flag(
        "--warm-start",
        "STUDY",
        "carry on from another study of the same database: its three best recipes first, and its trials shown to "
        "the sampler where they compare (default: start afresh)",
    )
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

    _add_export(commands)
    _add_check(commands)
    _add_restore(commands)
    _add_evaluate(commands)
    _add_plan(commands)
    _add_pareto(commands)
    _add_mattered(commands)
    _add_report(commands)
    _add_trials(commands)
    _add_dashboard(commands)
    commands.add_parser(
        "studies",
        help="list the shipped studies",
        description="List the shipped studies with a line each.",
        epilog="example:\n  python -m search studies",
        formatter_class=_Help,
    )
    return parser


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export-best",
        help="write the best model as files that other programs load",
        description="Validate the best trial again, then write its weights, ONNX, settings and model card.",
        epilog="example:\n  python -m search export-best --study kbnet --to my_model\n"
        "  python -m search export-best --study kbnet --format onnx,pt2,coreml --half",
        formatter_class=_Help,
    )
    flag = _adder(export)
    flag("--study", "NAME|FILE", "a study that has a finished trial", required=True)
    flag("--to", "DIR", "folder to write (default: OUT/STUDY/export)", type=Path)
    export.add_argument(
        "--format",
        metavar="A,B",
        default="safetensors,onnx",
        help="of safetensors (always), onnx, pt2 (torch.export) and coreml (for Macs; needs restune[coreml])",
    )
    export.add_argument("--half", action="store_true", help="store the weights as float16: half the size")
    which = _adder(export.add_mutually_exclusive_group())
    which("--trial", "N", "this trial, complete or waiting at a rung (default: the best)", type=int)
    which("--top", "K", "the K best, into DIR/1 to DIR/K (default: OUT/STUDY/export-1 to -K)", type=int)
    flag("--max-parameters", "N", "take the best trial of no more parameters (default: of any)", type=int)
    flag("--max-gmacs", "G", "... of no more 10^9 multiply-adds at 256 x 256 (default: of any)", type=float)
    flag(
        "--max-ms-per-megapixel",
        "MS",
        "... that restored 10^6 pixels in no more milliseconds (default: of any)",
        type=float,
    )
    export.add_argument("--force", action="store_true", help="replace an export that has a higher score")
    _add_places(export)


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="find what is wrong with a folder of pairs",
        description="Look for everything in a folder of pairs that would spoil a search or cost quality: missing "
        "partners, damaged files, sides that do not fit, images that training and validation share. Nothing in the "
        "folder is changed. Exit code 1 if something would spoil a search.",
        epilog="examples:\n  python -m search check my_pairs --html faults.html\n"
        "  python -m search check my_pairs --fix mended --groups 'page(\\d+)'",
        formatter_class=_Help,
    )
    check.add_argument(
        "folder", type=Path, metavar="DIR", help="DIR/{train,val}/{scan,clean} or DIR/{scan,clean}"
    )
    flag = _adder(check)
    _add_sides(flag)
    flag("--json", "FILE|-", "write all findings as JSON (- for the terminal, in place of the text)")
    flag("--html", "FILE", "write a page with the pictures in question", type=Path)
    flag(
        "--fix",
        "OUT",
        "write a mended copy with train and val, split so that no page or scene is in both; OUT/what-was-done.txt "
        "says what was done",
        type=Path,
    )
    flag(
        "--groups",
        "FILE|PATTERN",
        "with --fix, what must stay together besides what is found: as for compare --groups",
    )
    flag("--jobs", "N", "processes (default: all cores)", type=int)
    check.add_argument("--quiet", action="store_true", help="print errors only; the exit code tells")


def _add_restore(commands: Any) -> None:
    restore = commands.add_parser(
        "restore",
        help="restore images with an exported model",
        description="Restore files, folders with all below them, and patterns. 8 and 16 bits, gray and colour; "
        "transparency, colour profile, EXIF and resolution are kept. Large images go in tiles that fit into "
        "memory. The same command goes on where it stopped.",
        epilog="example:\n  python -m search restore runs/kbnet/export my_scans -o restored",
        formatter_class=_Help,
    )
    _add_model(restore)
    restore.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, TIFF or PDF files, folders, patterns"
    )
    flag = _adder(restore)
    flag(
        "-o", "OUT", "folder of the results; what lies in a folder keeps its place", type=Path, required=True
    )
    restore.add_argument("--overwrite", action="store_true", help="write results anew that are there already")
    restore.add_argument("--suffix", default="", metavar="TEXT", help="put behind the name of every result")
    flag(
        "--format",
        "png|tiff|jpg",
        "format of the results (default: that of the input)",
        choices=("png", "tiff", "jpg"),
    )
    restore.add_argument("--pdf-dpi", type=float, default=300.0, metavar="N", help="resolution of PDF pages")
    _add_inference(restore)
    restore.add_argument("--quiet", action="store_true", help="print errors only")


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score an exported model on pairs of images",
        description="Restore the degraded images of DIR as `restore` does and compare them with the clean ones: "
        "PSNR, SSIM, MAE and RMSE of every image, their means with intervals, against the images unchanged.",
        epilog="example:\n  python -m search evaluate runs/kbnet/export --data my_pairs",
        formatter_class=_Help,
    )
    _add_model(evaluate)
    flag = _adder(evaluate)
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{scan,clean}, or DIR/val/{scan,clean} where DIR has val",
        type=Path,
        required=True,
    )
    flag("--scan-dir", "NAME", "folder of degraded images inside DIR (default: scan, noisy, lq, input, ...)")
    flag("--clean-dir", "NAME", "folder of clean images inside DIR (default: clean, gt, hq, target, ...)")
    flag(
        "--groups",
        "FILE|PATTERN",
        "which images share a page or scene, as for `compare` (default: none do)",
    )
    evaluate.add_argument(
        "-o",
        dest="to",
        type=Path,
        default=Path("runs/evaluation"),
        metavar="OUT",
        help="folder of scores.csv and worst.png",
    )
    _add_inference(evaluate)
    evaluate.add_argument("--quiet", action="store_true", help="print errors only")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a folder that export-best wrote, or a .safetensors or .onnx file",
    )


def _add_inference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        default="auto",
        metavar="SIDE",
        help="side of the tiles in pixels; auto: what fits into memory",
    )
    parser.add_argument(
        "--tta", action="store_true", help="mean over all 8 flips and turns: 8 times the work"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="auto: half where it is faster and 99.9 %% of 8-bit values stay within 1; 16-bit images in fp32",
    )
    _adder(parser)(
        "--memory", "SIZE", "memory that may be used, as 6G or 800M (default: 1.8G, or half of what is free)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        help="what a search will cost and what its time buys, before it starts",
        description="Measure small, median and large recipes of a study on this device, for half a minute, and tell "
        "how many trials its time buys, how far they get, and whether it is enough.",
        epilog="example:\n  python -m search plan kbnet --data my_pairs --budget 2h",
        formatter_class=_Help,
    )
    plan.add_argument("study", metavar="STUDY", help="a shipped study, or a .toml file")
    _add_data(plan)
    _add_timeout(plan, "time of the run that is planned")
    flag = _adder(plan)
    flag("--trials", "N", "trials in the whole study (default: as the study says)", type=int)
    flag("--json", "FILE|-", "write what was found as JSON to FILE, or print it in place of the table")
    _add_conduct(plan)
    _add_places(plan)


def _add_pareto(commands: Any) -> None:
    pareto = commands.add_parser(
        "pareto",
        help="quality against cost of a study's trials",
        description="Print and draw the score of each finished trial against what its model costs, the front marked: "
        "those that no other beats in both.",
        epilog="example:\n  python -m search pareto kbnet --by ms",
        formatter_class=_Help,
    )
    pareto.add_argument("study", metavar="STUDY", help="a study in the database, or its .toml file")
    pareto.add_argument(
        "--by",
        choices=("parameters", "gmacs", "ms"),
        default="parameters",
        help="cost: trainable numbers, 10^9 multiply-adds at 256 x 256, or ms per megapixel",
    )
    _adder(pareto)("--to", "FILE.png", "the drawing (default: OUT/STUDY/pareto.png)", type=Path)
    _add_places(pareto)


def _add_mattered(commands: Any) -> None:
    mattered = commands.add_parser(
        "mattered",
        help="which settings mattered, in plain sentences",
        description="Say for each question (loss, augmentation, width against depth, learning rate, schedule, "
        "dense-sparse-dense, precision, batch and patch) whether it mattered in a study, by how much, and how sure "
        "that is. With --check the winner's recipe is trained anew with one change at a time; the same command "
        "goes on where it stopped.",
        epilog="examples:\n  python -m search mattered kbnet\n  python -m search mattered kbnet --check --budget 20m",
        formatter_class=_Help,
    )
    mattered.add_argument("study", metavar="STUDY", help="a study in the database, or its .toml file")
    mattered.add_argument(
        "--check", action="store_true", help="train the winner's recipe with one change at a time"
    )
    mattered.add_argument(
        "--budget", default="10m", metavar="TIME", help="time of all trainings of the check: 90s, 20m, 1h30m"
    )
    mattered.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    mattered.add_argument("--quiet", action="store_true", help="with --check: show no progress")
    _add_places(mattered)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write what a study found as a page to read and pass on",
        description="Write one HTML file about a study: what won and how sure that is, pictures before and after, "
        "curves, costs, what mattered, where the time went.",
        epilog="example:\n  python -m search report kbnet --format html,csv",
        formatter_class=_Help,
    )
    report.add_argument("study", metavar="STUDY", help="a study in the database, or its .toml file")
    report.add_argument("--format", default="html", metavar="LIST", help="any of html,md,csv")
    _adder(report)("--to", "DIR", "folder to write (default: OUT/STUDY/report)", type=Path)
    report.add_argument(
        "--no-pictures", action="store_true", help="restore no images: done in a second, without intervals"
    )
    _add_places(report)


def _add_trials(commands: Any) -> None:
    trials = commands.add_parser(
        "trials",
        help="list the trials of a study",
        description="List the trials of a study with their scores, times and settings, the best first.",
        epilog="example:\n  python -m search trials kbnet --sort seconds",
        formatter_class=_Help,
    )
    trials.add_argument("study", metavar="STUDY", help="a study in the database, or its .toml file")
    trials.add_argument("--all", action="store_true", help="all of them, not just 20 (csv always has all)")
    trials.add_argument(
        "--sort", choices=("psnr", "number", "seconds"), default="psnr", help="best, first or longest on top"
    )
    trials.add_argument("--format", choices=("table", "csv", "md"), default="table", help="what is printed")
    _add_places(trials)


def _add_dashboard(commands: Any) -> None:
    dashboard = commands.add_parser(
        "dashboard",
        help="look at studies in a browser, while they run or later",
        description="Serve optuna-dashboard on the database, with the pictures of all trials. Ctrl-C ends it.",
        epilog="example:\n  python -m search dashboard kbnet",
        formatter_class=_Help,
    )
    dashboard.add_argument(
        "study",
        metavar="STUDY",
        nargs="?",
        default=argparse.SUPPRESS,
        help="the study to open (default: the list)",
    )
    dashboard.add_argument("--port", type=int, default=8080, metavar="N", help="0 takes any free one")
    dashboard.add_argument(
        "--host", default="127.0.0.1", help="address to serve on; any but this machine's own asks for a token"
    )
    _adder(dashboard)("--token", "TEXT", "what a browser must know (default: made up where it is needed)")
    dashboard.add_argument("--read-only", action="store_true", help="refuse every change from the browser")
    dashboard.add_argument("--no-browser", action="store_true", help="only print the address")
    _add_places(dashboard)


def _adder(parser: argparse._ActionsContainer) -> Any:
    """Adds flags whose default is told in words: argparse must not print "(default: None)" as well."""

    def add(name: str, metavar: str, text: str, **options: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, default=argparse.SUPPRESS, **options)

    return add


def _add_timeout(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--timeout",
        "--budget",
        metavar="TIME",
        default=argparse.SUPPRESS,
        help=f"{what}: 90s, 20m, 1h30m (default: as the study says)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    flag = _adder(parser)
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{train,val}/{scan,clean} or DIR/{scan,clean} (default: what the study says; shipped ones: a demo)",
        type=Path,
    )
    _add_sides(flag)


def _add_sides(flag: Any) -> None:
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
