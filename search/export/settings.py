"""The settings beside exported weights, `config.json`: what the files of an export are called, and what one holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from search.errors import UserError, first_line

WEIGHTS, ONNX, SETTINGS = "model.safetensors", "model.onnx", "config.json"
FORMAT = "restune-1"


@dataclass(frozen=True)
class ExportedModel:
    """A model that restores, (N, C, H, W) float32 in [0, 1] in and out, and what it was trained for."""

    model: nn.Module
    channels: int
    """1 (gray) or 3 (RGB)."""
    multiple: int
    """`model.body` takes sides that are multiples of this."""
    name: str


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
