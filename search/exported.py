"""An exported model, loaded again: from its folder, its weights or its ONNX graph; nothing is unpickled."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import nn

from models import ModelConfig
from models.cost import count_parameters
from search.errors import UserError
from search.trial import checkpoint

WEIGHTS, ONNX, SETTINGS = "model.safetensors", "model.onnx", "config.json"
FORMAT = "restune-1"

_MODEL: TypeAdapter[Any] = TypeAdapter(ModelConfig)


@dataclass(frozen=True)
class Exported:
    """A model that restores, (N, C, H, W) float32 in [0, 1] in and out, and what it was trained for."""

    model: nn.Module
    channels: int
    """1 (gray) or 3 (RGB)."""
    multiple: int
    """`model.body` takes sides that are multiples of this."""
    name: str


def load(path: Path) -> Exported:
    """The model in an exported folder, or in one of its files: weights or graph.

    A graph from elsewhere needs no settings beside it. Raises `UserError` for whatever is no such model.
    """
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    if not path.exists():
        raise UserError(f"{path}: no such model; it is a folder that `export-best` wrote, or a file in it")
    if file is not None and file.suffix == ".onnx":
        from search.graph import load_graph

        return load_graph(file)
    if file is not None and file.name != SETTINGS and file.suffix != ".safetensors":
        raise UserError(
            f"{file}: not a model that is opened here; allowed: an exported folder, .safetensors, .onnx"
        )
    settings = read_settings(folder)
    weights = file if file is not None and file.suffix == ".safetensors" else folder / WEIGHTS
    model, config = _build(folder, settings, weights)
    return Exported(model, config.channels, int(model.size_multiple), config.kind)  # type: ignore[arg-type]


def read_settings(folder: Path) -> dict[str, Any]:
    """The `config.json` of an exported folder. Raises `UserError` if it is none of ours."""
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; an exported folder has {SETTINGS} and {WEIGHTS}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_first_line(error)}") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise UserError(f"{path}: not an export of this program (format {FORMAT})")
    return settings


def _build(folder: Path, settings: dict[str, Any], weights: Path) -> tuple[nn.Module, Any]:
    try:
        config = _MODEL.validate_python(settings.get("model"))
        model: nn.Module = config.build().eval()
        if count_parameters(model):
            checkpoint.load_weights(weights, model)
    except FileNotFoundError:
        raise UserError(f"{weights}: missing; an exported folder has {SETTINGS} and {WEIGHTS}") from None
    except (ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded: {_first_line(error)}") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise UserError(f"{weights}: damaged: some weights are no finite numbers")
    return model, config


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
