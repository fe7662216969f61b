"""An exported model, loaded again: from its folder, its weights or its ONNX graph; nothing is unpickled."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import nn

from models import ModelConfig, count_parameters
from search.errors import UserError, first_line
from search.export.settings import SETTINGS, WEIGHTS, ExportedModel, read_export_settings, white_level_of
from search.trial import load_weights

_MODEL: TypeAdapter[Any] = TypeAdapter(ModelConfig)


def load_exported(path: Path) -> ExportedModel:
    """The model in an exported folder, or in one of its files: weights or graph.

    A graph from elsewhere needs no settings beside it. Raises `UserError` for anything else.
    """
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    if not path.exists():
        raise UserError(f"{path}: no such model; it is a folder that `export-best` wrote, or a file in it")
    if file is not None and file.suffix == ".onnx":
        from search.export.onnx_model import load_graph

        return load_graph(file)
    if file is not None and file.name != SETTINGS and file.suffix != ".safetensors":
        raise UserError(
            f"{file}: not a model that is opened here; allowed: an exported folder, .safetensors, .onnx"
        )
    settings = read_export_settings(folder)
    weights = file if file is not None and file.suffix == ".safetensors" else folder / WEIGHTS
    model, config = _build(folder, settings, weights)
    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    return ExportedModel(model, config.channels, multiple, config.kind, white_level_of(settings))


def _build(folder: Path, settings: dict[str, Any], weights: Path) -> tuple[nn.Module, Any]:
    try:
        config = _MODEL.validate_python(settings.get("model"))
        model: nn.Module = config.build().eval()
        if count_parameters(model):
            load_weights(weights, model)
    except FileNotFoundError:
        raise UserError(f"{weights}: missing; an exported folder has {SETTINGS} and {WEIGHTS}") from None
    except (ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded: {first_line(error)}") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise UserError(f"{weights}: damaged: some weights are no finite numbers")
    return model, config
