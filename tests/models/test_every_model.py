"""What every model of the union promises: sizes, gradients, precision, settings, weights, exported graphs."""

import logging
import warnings
from pathlib import Path
from typing import get_args

import onnxruntime
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor, nn

import models
from models import ModelConfig, count_macs
from models.layers import crop_like, pad_to_multiple
from search.trial import save_weights
from tests.models.examples import EXAMPLES, Example, each

trained = pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if list(example.config.build().parameters())],
    ids=lambda example: example.name,
)


def test_every_model_of_the_union_has_an_example() -> None:
    union = get_args(get_args(ModelConfig)[0])
    assert {type(example.config) for example in EXAMPLES} == set(union)
    assert {config.__name__ for config in union} <= set(models.__all__)


@each()
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_size_keeps_its_shape(example: Example, channels: int) -> None:
    model = example.config.model_copy(update={"channels": channels}).build().eval()
    for height, width in ((1, 1), (1, 9), (5, 2), (17, 23)):
        with torch.no_grad():
            restored = model(torch.rand(2, channels, height, width))
        assert restored.shape == (2, channels, height, width)
        assert restored.dtype == torch.float32
        assert restored.isfinite().all()


@trained
def test_gradients_reach_every_parameter(example: Example) -> None:
    torch.manual_seed(0)
    model = example.config.build()
    (model(torch.rand(2, 3, 17, 23)) * torch.randn(2, 3, 17, 23)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(example.silent or ("no such name",)):
            assert parameter.grad.abs().max() > 0, name


@trained
def test_autocast_rounds_the_change_but_not_the_image(example: Example) -> None:
    torch.manual_seed(0)
    model = example.config.build().eval()
    degraded = torch.rand(1, 3, 17, 23)
    exact = model(degraded)
    with torch.autocast("cpu", torch.bfloat16):
        restored = model(degraded)
    assert restored.dtype == torch.float32
    change = (exact - degraded).abs().max()
    assert (restored - exact).abs().max() < 0.03 * change
    (restored**2).mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@each()
def test_settings_survive_json(example: Example) -> None:
    known: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    assert known.validate_json(example.config.model_dump_json()) == example.config


@each()
def test_weights_survive_a_file(example: Example, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = example.config.build().eval(), example.config.build().eval()
    save_weights(tmp_path / "model.safetensors", model)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    degraded = torch.rand(1, 3, 17, 23)
    with torch.no_grad():
        assert torch.equal(model(degraded), other(degraded))


@trained
def test_twice_the_area_costs_twice_the_products(example: Example) -> None:
    model = example.config.build()
    one, two = count_macs(model, 3, 64, 64), count_macs(model, 3, 64, 128)
    assert one > 0
    assert two == pytest.approx(2 * one, rel=0.01)


@trained
def test_pruning_leaves_norms_and_vectors_alone(example: Example) -> None:
    prunable = example.config.build().prunable()
    assert prunable
    assert all(parameter.ndim >= 3 for _, parameter in prunable)


def exported(model: nn.Module, channels: int, path: Path) -> Path:
    """The model without padding, as ONNX for any height and width."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, degraded: Tensor) -> Tensor:
            return model.body(degraded)  # type: ignore[no-any-return, operator]

    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of onnxscript and copyreg
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            Body().eval(),
            (torch.rand(1, channels, 4 * multiple, 6 * multiple),),
            str(path),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"degraded": sides},
            input_names=["degraded"],
            output_names=["restored"],
        )
    return path


@trained
def test_onnx_equals_torch_at_three_odd_sizes(
    example: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    torch.manual_seed(0)
    model = example.config.build().eval()
    for parameter in model.parameters():  # factors that start at zero would hide what they multiply
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    session = onnxruntime.InferenceSession(str(exported(model, 3, tmp_path / "model.onnx")))
    for height, width in ((17, 23), (33, 47), (21, 10)):
        degraded = torch.rand(1, 3, height, width)
        padded = pad_to_multiple(degraded, model.size_multiple)
        (restored,) = session.run(None, {"degraded": padded.numpy()})
        with torch.no_grad():
            assert (crop_like(torch.from_numpy(restored), degraded) - model(degraded)).abs().max() < 1e-5
