"""Published networks and the operator, against outputs and gradients made with the original code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models import DnCNNConfig, KBNetSConfig
from models.kernel_basis import kernel_basis_attention
from models.kernel_basis.operator import kernel_basis_convolution, kernel_basis_reference

GOLDEN = Path(__file__).parents[1] / "golden"


def load(name: str) -> tuple[dict[str, int], dict[str, Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


def loss(output: Tensor) -> Tensor:
    """The scalar that the golden gradients are of."""
    return (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum()


def check_network(model: nn.Module, tensors: dict[str, Tensor], tolerance: float) -> None:
    weights = {
        key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")
    }
    model.load_state_dict(weights, strict=True)
    degraded = tensors["input"].clone().requires_grad_()
    restored = model(degraded)
    assert relative_error(restored, tensors["output"]) < tolerance
    loss(restored).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()} | {
        "input": degraded.grad
    }
    for key in (key for key in tensors if key.startswith("grad.")):
        gradient = gradients[key.removeprefix("grad.")]
        assert gradient is not None
        assert relative_error(gradient, tensors[key]) < tolerance, key


@pytest.mark.parametrize(
    "operator",
    [kernel_basis_attention, kernel_basis_reference, kernel_basis_convolution],
    ids=lambda f: f.__name__,
)
def test_operator_equals_the_published_one(operator: Callable[..., Tensor]) -> None:
    config, tensors = load("kba_operator")
    names = ("x", "attention", "weight", "bias")
    inputs = [tensors[name].clone().requires_grad_() for name in names]
    output = operator(*inputs, config["kernel_size"], config["groups"])
    assert relative_error(output, tensors["output"]) < 1e-4
    loss(output).backward()
    for name, tensor in zip(names, inputs, strict=True):
        assert tensor.grad is not None
        assert relative_error(tensor.grad, tensors[f"grad.{name}"]) < 1e-4, name


@pytest.mark.parametrize("name", ["kbnet_s_tiny", "kbnet_s_lightweight_gray"])
def test_kbnet_s_equals_the_published_network(name: str) -> None:
    published, tensors = load(name)
    config = KBNetSConfig.model_validate(
        {
            "channels": published["img_channel"],
            "width": published["width"],
            "encoder_blocks": published["enc_blk_nums"],
            "middle_blocks": published["middle_blk_num"],
            "decoder_blocks": published["dec_blk_nums"],
            "lightweight": published["lightweight"],
            "ffn_scale": published["ffn_scale"],
        }
    )
    check_network(config.build(), tensors, 1e-4)


@pytest.mark.parametrize("name", ["dncnn_r", "dncnn_br"])
def test_dncnn_equals_the_published_network(name: str) -> None:
    published, tensors = load(name)
    config = DnCNNConfig.model_validate(
        {
            "channels": published["in_nc"],
            "width": published["nc"],
            "layers": published["nb"],
            "batch_norm": published["act_mode"] == "BR",
        }
    )
    check_network(config.build().eval(), tensors, 1e-5)
