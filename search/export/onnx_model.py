"""An ONNX graph used like a network: one that this program exported, or any other from images to images."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from data.files import FULL_WHITE
from models.layers import crop_like, pad_to_multiple
from search.errors import UserError
from search.export.settings import SETTINGS, ExportedModel, read_export_settings, white_level_of

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ALLOWED = "allowed: one input and one output (1, C, H, W), float32, C = 1 or 3, any H and W"


class Graph(nn.Module):
    """A graph with the interface of a network, on the CPU. Its statistics over an image cannot be replaced."""

    def __init__(self, session: Any, multiple: int) -> None:
        super().__init__()
        self.session, self.size_multiple = session, multiple
        self.name = session.get_inputs()[0].name

    def forward(self, degraded: Tensor) -> Tensor:
        """Restored images (N, C, H, W), float32, for degraded ones in [0, 1]; any H, W >= 1."""
        return crop_like(self.body(pad_to_multiple(degraded, self.size_multiple)), degraded)

    def body(self, degraded: Tensor) -> Tensor:
        """The same for sides that are multiples of `size_multiple`."""
        images = degraded.detach().cpu().float().numpy()
        restored = [self.session.run(None, {self.name: image[None]})[0] for image in images]
        return torch.from_numpy(np.concatenate(restored)).to(degraded.device)


def load_graph(path: Path) -> ExportedModel:
    """The model in an ONNX file. Raises `UserError` for what does not make images of the same size from images."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common type
        raise UserError(f"{path}: cannot be loaded: {str(error).splitlines()[0][:200]}") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        raise UserError(
            f"{path}: {len(inputs)} inputs of {inputs[0].type}, {len(outputs)} outputs; {ALLOWED}"
        )
    shape = inputs[0].shape
    if len(shape) != 4 or shape[1] not in (1, 3) or any(isinstance(side, int) for side in shape[2:]):
        raise UserError(f"{path}: its input is {shape}; {ALLOWED}")
    channels = int(shape[1])
    multiple = _multiple_in_settings(path) or _probed_multiple(session, channels, path)
    beside = (path.parent / SETTINGS).is_file()
    white = white_level_of(read_export_settings(path.parent)) if beside else FULL_WHITE
    return ExportedModel(Graph(session, multiple), channels, multiple, path.stem, white)


def _multiple_in_settings(path: Path) -> int | None:
    """The size multiple in the settings beside the graph; None for a graph of another program."""
    if not (path.parent / SETTINGS).is_file():
        return None
    multiple = read_export_settings(path.parent).get("input", {}).get("size_multiple")
    return multiple if multiple in MULTIPLES else None


def _probed_multiple(session: Any, channels: int, path: Path) -> int:
    """The smallest power of two of which the sides can be odd multiples."""
    problem = "no output"
    for multiple in MULTIPLES:
        image = np.zeros((1, channels, 3 * multiple, 5 * multiple), np.float32)
        try:
            (found,) = session.run(None, {session.get_inputs()[0].name: image})
        except Exception as error:
            problem = str(error).splitlines()[0][:120]
            continue
        if found.shape == image.shape:
            return multiple
        problem = f"{image.shape[2:]} becomes {found.shape[1:]}"
    raise UserError(f"{path}: does not make images of the same size ({problem}); {ALLOWED}")
