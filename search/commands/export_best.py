"""The command `export-best`: the best model as files that other programs load."""

import argparse

from search.commands import flag_values, flags
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    export = commands.add_parser(
        "export-best",
        help="write the best model as files that other programs load",
        description="Validate the best trial again, then write its weights, ONNX, settings and model card.",
        epilog="example:\n  python -m search export-best --study kbnet --to my_model\n"
        "  python -m search export-best --study kbnet --format onnx,pt2,coreml --half",
        formatter_class=flags.Help,
    )
    flags.add_study(export, "a study that has a finished trial, or its .toml file")
    flag = flags.flag_adder(export)
    flag("--to", "DIR", "folder to write (default: OUT/STUDY/export)", type=flags.path)
    flag(
        "--data",
        "DIR",
        "where the pairs of the study are now (default: where it found them)",
        type=flags.path,
    )
    export.add_argument(
        "--format",
        metavar="A,B",
        default="safetensors,onnx",
        help="of safetensors (always), onnx, pt2 (torch.export) and coreml (for Macs; needs restune[coreml])",
    )
    export.add_argument("--half", action="store_true", help="store the weights as float16: half the size")
    which = flags.flag_adder(export.add_mutually_exclusive_group())
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
    flags.add_locations(export)


def main(options: argparse.Namespace) -> int:
    from search.export import ExportChoice, ExportOptions, export_trials, parse_formats
    from search.study import LimitsConfig

    given = vars(options)
    name = flag_values.study_name(options.study)
    limits = LimitsConfig.from_flags(
        parameters=given.get("max_parameters"),
        gmacs=given.get("max_gmacs"),
        ms_per_megapixel=given.get("max_ms_per_megapixel"),
    )
    if limits and "trial" in given:
        raise UserError("--trial names one trial; --max-... choose among all: give one of them")
    choice = ExportChoice(given.get("trial"), given.get("top"), limits)
    export_options = ExportOptions(
        parse_formats(options.format), half=options.half, force=options.force, data=given.get("data")
    )
    export_trials(
        name, flag_values.database_url(options), options.out, given.get("to"), choice, export_options
    )
    return 0
