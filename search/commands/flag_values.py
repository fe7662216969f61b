"""Values of the flags that several commands share: times, sizes, devices, settings of a search."""

import argparse
import os
import re
import unicodedata
from typing import TYPE_CHECKING

from search.errors import UserError

if TYPE_CHECKING:
    import torch

    from search.restore import RestorerOptions
    from search.study import StudySpec
    from search.worker import RunOptions


def study_name(study: str) -> str:
    """The name in the database of a study that is called by it, or by its .toml file."""
    if not study.endswith(".toml"):
        return unicodedata.normalize("NFC", study)
    from search.study import load_spec

    return load_spec(study).name


def seconds(flag: str, text: str) -> float:
    """The time in "90s" or "1h30m", or in 0. `UserError` for anything else."""
    from search.study import parse_duration

    try:
        found = parse_duration("0s" if text == "0" else text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from None
    assert isinstance(found, float)
    return found


def study_spec(name: str, options: argparse.Namespace, *changes: str) -> "StudySpec":
    """The study of that name, with these settings and the data as the flags say."""
    from search.study import load_spec, with_flags

    given = vars(options)
    spec = with_flags(load_spec(name), {key: given[key] for key in changes if key in given})
    if "data" in given:
        _check_pattern(given.get("pair_by"))
        return spec.with_data(
            options.data, given.get("scan_dir"), given.get("clean_dir"), given.get("pair_by")
        )
    if given.keys() & {"scan_dir", "clean_dir", "pair_by"}:
        raise UserError("--scan-dir, --clean-dir and --pair-by are about --data DIR, which is missing")
    return spec


def _check_pattern(text: str | None) -> None:
    """Raises DataError for what is no pattern: a study would name a setting, not the flag."""
    from data.sources import checked_pattern

    checked_pattern(text)


def run_options(options: argparse.Namespace, on: "torch.device | None" = None) -> "RunOptions":
    """The settings for running a search, from flags; on `on` if the flags name several devices."""
    from search.worker import RunOptions

    return RunOptions(
        storage=database_url(options),
        out=options.out,
        device=on or device(options.device),
        memory=size_in_bytes(options.memory) if "memory" in vars(options) else None,
        quiet=options.quiet,
        continue_with_changes=vars(options).get("continue_with_changes", False),
        warm_start=vars(options).get("warm_start"),
        command=options.typed,
    )


def restorer_options(options: argparse.Namespace) -> "RestorerOptions":
    from search.restore import RestorerOptions

    if options.tile != "auto" and not (options.tile.isdecimal() and int(options.tile) >= 64):
        raise UserError(f"--tile {options.tile}: not a side; write auto, or a number of pixels from 64 on")
    return RestorerOptions(
        device=device(options.device),
        precision=options.precision,
        tile=None if options.tile == "auto" else int(options.tile),
        turns=8 if options.tta else 1,
        memory=size_in_bytes(options.memory) if "memory" in vars(options) else None,
    )


def database_url(options: argparse.Namespace) -> str:
    """The database: as the flag says, else the environment, else a file in the folder of all runs."""
    from search.database import default_storage_url
    from search.launch import STORAGE_VARIABLE

    given = vars(options).get("storage") or os.environ.get(STORAGE_VARIABLE)
    return str(given or default_storage_url(options.out))


def size_in_bytes(size: str) -> int:
    """The number of bytes in "6G" or "800M"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MG])", size)
    if found is None:
        raise UserError(f"--memory {size}: not a size; write 800M or 6G")
    return round(float(found[1]) * {"M": 2**20, "G": 2**30}[found[2]])


def devices(names: str, workers: int | None) -> "tuple[torch.device, ...]":
    """A device for each worker: the named ones, in turn."""
    from search.inference import graphics_cards

    found = graphics_cards() if names == "auto" else []
    found = found or [device(name.strip()) for name in names.split(",")]
    if workers is None:
        return tuple(found)
    if workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    return tuple(found[index % len(found)] for index in range(workers))


def device(name: str) -> "torch.device":
    """The device of that name, if this machine has it."""
    from search.inference import available_devices, graphics_cards

    there = available_devices()
    if name == "auto":
        return next(iter(graphics_cards()), there[0])
    # The kind alone, as in "cuda", is the first of that kind.
    found = next((one for one in there if name in (str(one), one.type)), None)
    if found is None:
        raise UserError(f"--device {name}: not on this machine; there are auto, {', '.join(map(str, there))}")
    return found
