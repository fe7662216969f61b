"""Flags that several commands share, and the layout of their help."""

import argparse
import os
from pathlib import Path
from typing import Any

Commands = Any  # what ArgumentParser.add_subparsers() gives: argparse has no public name for it


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults beside flags, and examples as they are written."""


def path(text: str) -> Path:
    """A path as it is typed; `~` is a home folder here, though no shell has seen it, as in `--out=~/runs`."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser fails for an unknown user)


def file_or_else(text: str) -> str:
    """The text of a flag that takes a file or something else, such as `-`; `~` is a home folder."""
    return str(path(text)) if text.startswith("~") else text


def flag_adder(parser: argparse._ActionsContainer) -> Any:
    """A function that adds flags whose help names the default: argparse must not print "(default: None)" as well."""

    def add(name: str, metavar: str, text: str, **options: Any) -> None:
        parser.add_argument(name, metavar=metavar, help=text, default=argparse.SUPPRESS, **options)

    return add


def add_study(
    parser: argparse.ArgumentParser,
    text: str = "a study in the database, or its .toml file",
    required: bool = True,
) -> None:
    """The name of a study, by itself or after --study: every command accepts both."""
    either = parser.add_mutually_exclusive_group(required=required)
    either.add_argument("study", metavar="STUDY", nargs="?", default=argparse.SUPPRESS, help=text)
    either.add_argument("--study", metavar="STUDY", dest="study", default=argparse.SUPPRESS, help="the same")


def add_json(parser: argparse._ActionsContainer) -> None:
    flag_adder(parser)(
        "--json",
        "FILE|-",
        "write what was found as JSON to FILE, or print it in place of the table",
        type=file_or_else,
    )


def add_timeout(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--timeout",
        "--budget",
        metavar="TIME",
        default=argparse.SUPPRESS,
        help=f"{what}: 90s, 20m, 1h30m (default: as the study says)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    flag = flag_adder(parser)
    flag(
        "--data",
        "DIR",
        "pairs: DIR/{train,val}/{scan,clean} or DIR/{scan,clean} (default: what the study says; shipped ones: a demo)",
        type=path,
    )
    add_side_folders(flag)


def add_side_folders(flag: Any) -> None:
    """Adds the flags that name the two folders of a pair and the pattern of its names."""
    flag("--scan-dir", "NAME", "folder of degraded images inside DIR (default: scan, noisy, lq, input, ...)")
    flag("--clean-dir", "NAME", "folder of clean images inside DIR (default: clean, gt, hq, target, ...)")
    flag(
        "--pair-by",
        "PATTERN",
        "how names of partners are made, DEGRADED=CLEAN: '{}_noisy={}_gt', '{}/NOISY_*={}/GT_*'; {} is what they "
        "share, * anything else (default: equal names, or what all names of a side have)",
    )


def add_search_flags(parser: argparse.ArgumentParser, device: str = "auto, cpu, cuda or cuda:N") -> None:
    flag_adder(parser)("--seed", "N", "seed of sampler and trials (default: as the study says)", type=int)
    parser.add_argument("--device", default="auto", help=device)
    add_memory(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def add_memory(parser: argparse.ArgumentParser) -> None:
    flag_adder(parser)(
        "--memory",
        "SIZE",
        "memory that may be used on the CPU, as 6G or 800M: larger batches go in parts (default: no limit)",
    )


def add_locations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=path, default=Path("runs"), metavar="DIR", help="where everything is kept"
    )
    flag_adder(parser)(
        "--storage",
        "URL",
        "database: sqlite:///FILE, postgresql://USER@HOST/NAME (default: $RESTUNE_STORAGE, or sqlite:///OUT/search.db)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=path,
        metavar="MODEL",
        help="a folder that export-best wrote, or a .safetensors or .onnx file",
    )


def add_inference(parser: argparse.ArgumentParser) -> None:
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
    flag_adder(parser)(
        "--memory", "SIZE", "memory that may be used, as 6G or 800M (default: 1.8G, or half of what is free)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
