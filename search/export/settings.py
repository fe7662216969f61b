"""The settings beside exported weights, `config.json`, and the file names of an export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from data.files import FULL_WHITE
from search.errors import UserError, first_line

WEIGHTS, ONNX, SETTINGS = "model.safetensors", "model.onnx", "config.json"
FORMAT = "restune-1"


@dataclass(frozen=True)
class ExportedModel:
    """A model that restores, (N, C, H, W) float32 in [0, 1] in and out, with its channels and size multiple."""

    model: nn.Module
    channels: int
    """1 (gray) or 3 (RGB)."""
    multiple: int
    """`model.body` takes sides that are multiples of this."""
    name: str
    white_level: int = FULL_WHITE
    """The value of white in the 16-bit files it was trained with."""


def white_level_of(settings: Mapping[str, Any]) -> int:
    """The value of white in 16-bit files that the settings of an export say, or the largest there is."""
    white = settings.get("input", {}).get("white_level")
    return white if isinstance(white, int) and 255 <= white <= FULL_WHITE else FULL_WHITE


def read_export_settings(folder: Path) -> dict[str, Any]:
    """The `config.json` of an exported folder. Raises `UserError` if it is none of ours."""
    path = folder / SETTINGS
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; an exported folder has {SETTINGS} and {WEIGHTS}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    settings: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    found = settings.get("format")
    if isinstance(found, str) and found.startswith(FORMAT.rstrip("0123456789")) and found != FORMAT:
        raise UserError(
            f"{path}: written by another version of this program (format {found!r}, this one reads {FORMAT}): "
            "pip install --upgrade restune"
        )
    if found != FORMAT:
        raise UserError(f"{path}: not an export of this program (format {FORMAT})")
    return settings
