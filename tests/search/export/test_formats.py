"""The files of an export, for every model: what other programs make of them."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models import DnCNNConfig, UNetConfig
from models.pix2pix import Pix2PixConfig
from search.errors import UserError
from search.export import parse_formats
from search.export.formats import check_sizes, difference, round_to_half, spandrel_name, write_formats
from search.trial import save_weights
from tests.models.examples import EXAMPLES, Example

NETWORKS = [
    *(example for example in EXAMPLES if example.config.kind != "classical"),
    Example("drunet", UNetConfig(width=4, levels=3, blocks=2, channels=3)),
]
networks = pytest.mark.parametrize("example", NETWORKS, ids=lambda example: example.name)


def stirred(config: Any) -> torch.nn.Module:
    """A model without zeros that would hide what they multiply."""
    torch.manual_seed(0)
    model: torch.nn.Module = config.build().eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@networks
def test_spandrel_opens_exactly_the_models_that_it_is_said_to_know(
    example: Example, half: bool, spandrel: Any, tmp_path: Path
) -> None:
    model = stirred(example.config)
    if half:
        round_to_half(model)
    write_formats(tmp_path, model, 3, ("safetensors",), half=half)
    known = spandrel_name(example.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library
        try:
            loaded = spandrel.ModelLoader().load_from_file(tmp_path / "model.safetensors").eval()
        except (RuntimeError, spandrel.UnsupportedModelError):
            assert known is None
            return
    assert loaded.architecture.name == known
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():  # its face for images clips, and gives a DRUNet its noise level
        found, expected = loaded(image), model(image).clamp(0, 1)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_rounding_to_half_is_numpys() -> None:
    model = stirred(DnCNNConfig(width=6, layers=4, batch_norm=True))
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    round_to_half(model)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            np.testing.assert_array_equal(tensor.numpy(), before[name].astype(np.float16).astype(np.float32))
        else:
            np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_weights_out_of_range_of_half_are_refused() -> None:
    model = DnCNNConfig(width=4, layers=3).build()
    next(model.parameters()).data.view(-1)[0] = 7e4
    with pytest.raises(UserError, match="7e\\+04"):
        round_to_half(model)


def test_counters_stay_whole_numbers_in_a_half_file(tmp_path: Path) -> None:
    model = DnCNNConfig(width=4, layers=4, batch_norm=True).build()
    save_weights(tmp_path / "w.safetensors", model, torch.float16)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "w.safetensors").values()}
    assert kinds == {torch.float16, torch.int64}


@pytest.mark.parametrize("wrong", [1e-3, float("nan")], ids=str)
def test_a_file_that_restores_otherwise_is_refused(wrong: float) -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build().eval()
    with pytest.raises(UserError, match="the copy differs from torch by"):
        difference(lambda image: model(image) + wrong, model, 1, "the copy")
    assert difference(lambda image: model(image), model, 1, "the copy") < 1e-6


def test_weights_are_always_written() -> None:
    assert parse_formats("pt2, onnx") == ("safetensors", "onnx", "pt2")
    assert parse_formats("") == ("safetensors",)


def test_torch_program_restores_alike_at_odd_sizes(tmp_path: Path) -> None:
    model = stirred(DnCNNConfig(channels=1, width=4, layers=3))
    found = write_formats(tmp_path, model, 1, ("pt2",), half=False)
    assert 0 <= found["pt2"]["largest_difference_to_torch"] < 1e-5


def test_torch_program_of_a_model_with_large_multiples_is_compared_where_it_runs(tmp_path: Path) -> None:
    model = stirred(Pix2PixConfig(channels=1, width=4, depth=5, norm="none", dropout=0.0))
    found = write_formats(tmp_path, model, 1, ("pt2",), half=False)["pt2"]
    assert found["smallest_side"] == 64
    assert check_sizes(32) == [(63, 63), (63, 63), (63, 90)]
    assert found["largest_difference_to_torch"] < 1e-5


def test_core_ml_is_a_float16_program_of_one_size_that_nothing_was_compared_with(tmp_path: Path) -> None:
    tools = pytest.importorskip("coremltools", reason="Core ML is not tested", exc_type=ImportError)
    model = stirred(DnCNNConfig(channels=1, width=4, layers=3))
    found = write_formats(tmp_path, model, 1, ("coreml",), half=False)["coreml"]
    assert (found["side"], found["compute_units"], found["largest_difference_to_torch"]) == (256, "ALL", None)
    spec = tools.models.MLModel(str(tmp_path / "model.mlpackage"), skip_model_load=True).get_spec()
    assert spec.WhichOneof("Type") == "mlProgram"
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = [op.outputs[0].type.tensorType.dataType for op in block.operations if op.type == "conv"]
    assert kinds == [10] * 3  # FLOAT16 of Core ML's MIL.proto


@pytest.mark.parametrize(
    "config", [DnCNNConfig(width=4, layers=3), UNetConfig(width=4, levels=2, blocks=1)], ids=["dncnn", "unet"]
)
def test_exported_graphs_name_no_folder_of_this_machine(config: Any, tmp_path: Path) -> None:
    write_formats(tmp_path, stirred(config), 3, ("safetensors", "onnx", "pt2"), half=False)
    parts = [(tmp_path / "model.onnx").read_bytes()]
    with zipfile.ZipFile(tmp_path / "model.pt2") as file:
        parts += [file.read(name) for name in file.namelist()]
    here = Path(__file__).resolve().parents[3]
    for part in parts:
        for trace in (str(here), str(Path.home()), "site-packages", '.py"', 'stack_trace": "', str(tmp_path)):
            assert trace.encode() not in part
