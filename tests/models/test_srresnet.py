"""SRResNet: the published size, its norms and activations, what channel normalisation does, what is refused."""

import warnings
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from models import count_macs, count_parameters
from models.layers.blocks import GroupNorm2d
from models.srresnet import SRResNetConfig

TINY = SRResNetConfig(width=8, blocks=2)


def randomised(config: SRResNetConfig) -> Any:
    """A model in evaluation mode whose parameters are all far from where they start."""
    torch.manual_seed(0)
    model = config.build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_costs_are_those_of_the_paper_with_3x3_at_both_ends() -> None:
    published = SRResNetConfig(activation="prelu", norm="batch")
    with torch.device("meta"):
        model = published.build()
    kernels = 9 * (3 * 64 + 33 * 64 * 64 + 64 * 3)
    # Biases stand where no norm follows; 33 norms have a scale and a shift each; 17 activations a slope.
    assert count_parameters(model) == kernels + (64 + 3) + 33 * 2 * 64 + 17
    assert count_macs(model, 3, 10, 10) == 100 * kernels


def test_bottleneck_halves_the_width_inside() -> None:
    with torch.device("meta"):
        model = SRResNetConfig(width=16, blocks=1, block="bottleneck").build()
    assert {
        name: tuple(weight.shape) for name, weight in model.blocks.named_parameters() if weight.ndim > 1
    } == {
        "0.conv1.weight": (8, 16, 1, 1),
        "0.conv2.weight": (8, 8, 3, 3),
        "0.conv3.weight": (16, 8, 1, 1),
    }


def test_network_equals_its_formula() -> None:
    model = randomised(SRResNetConfig(width=8, blocks=2, activation="glu", residual_scale=0.3))
    degraded = torch.rand(2, 3, 17, 23)
    weights: dict[str, Tensor] = model.state_dict()

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def gated(x: Tensor) -> Tensor:
        return x[:, :8] * torch.sigmoid(x[:, 8:])

    features = x = gated(conv(degraded, "conv_first"))
    for block in ("blocks.0", "blocks.1"):
        x = x + 0.3 * conv(gated(conv(x, f"{block}.conv1")), f"{block}.conv2")
    expected = degraded + conv(features + conv(x, "conv_hr"), "conv_last")
    assert (model(degraded) - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_norm_equals_torch_in_float64(groups: int) -> None:
    torch.manual_seed(0)
    norm = GroupNorm2d(groups, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(2, 8, 17, 23) + 10
    if groups == 8:
        expected = F.instance_norm(images.double(), weight=norm.weight.double(), bias=norm.bias.double())
    else:
        expected = F.group_norm(images.double(), groups, norm.weight.double(), norm.bias.double())
    assert (norm(images) - expected).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        half = norm(images.bfloat16())
    assert half.dtype == torch.bfloat16
    # Within the rounding of 10 to bfloat16, 1/32, plus that of the result.
    assert (half - expected).abs().max() < 0.15


@pytest.mark.parametrize("norm", ["none", "instance", "layer", "group"])
def test_one_pixel_can_be_trained_on(norm: Literal["none", "instance", "layer", "group"]) -> None:
    model = SRResNetConfig(width=8, blocks=1, norm=norm).build().train()
    with torch.autocast("cpu", torch.bfloat16):
        restored = model(torch.rand(1, 3, 1, 1))
    restored.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "layer", "group"])
@pytest.mark.parametrize("channel_normalize", ["none", "input_and_output"])
def test_fresh_network_starts_from_the_degraded_image_at_any_depth(
    norm: Literal["none", "batch", "instance", "layer", "group"],
    channel_normalize: Literal["none", "input_and_output"],
) -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    for blocks in (1, 16):
        config = SRResNetConfig(width=16, blocks=blocks, norm=norm, channel_normalize=channel_normalize)
        assert (config.build().eval()(degraded) - degraded).square().mean() < 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_that_of_a_transform_around_the_network(channels: Literal[1, 3]) -> None:
    config = TINY.model_copy(update={"channels": channels})
    plain = randomised(config)
    degraded = torch.rand(2, channels, 17, 23)
    mean = torch.tensor([0.485, 0.456, 0.406] if channels == 3 else [0.449]).view(-1, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225] if channels == 3 else [0.226]).view(-1, 1, 1)
    within = plain((degraded - mean) / std)
    for kind, expected in (("input", within), ("input_and_output", within * std + mean)):
        model = config.model_copy(update={"channel_normalize": kind}).build().eval()
        model.load_state_dict(plain.state_dict(), strict=True)
        assert (model(degraded) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"width": 9, "block": "bottleneck"},
            "width 9 cannot be halved by block = bottleneck; allowed: even",
        ),
        (
            {"width": 12, "norm": "group", "groups": 5},
            "groups 5 does not divide the 12 channels inside a block",
        ),
        ({"width": 12, "norm": "group", "groups": 4, "block": "bottleneck"}, "allowed: 1, 2, 3, 6"),
        ({"activation": "tanh"}, "'relu', 'prelu', 'gelu', 'silu' or 'glu'"),
        ({"residual_scale": 0.0}, "greater than 0"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        SRResNetConfig.model_validate(settings)
    assert message in str(error.value)


def test_prunable_leaves_first_and_last_layer_dense() -> None:
    assert [name for name, _ in TINY.build().prunable()] == [
        "blocks.0.conv1.weight",
        "blocks.0.conv2.weight",
        "blocks.1.conv1.weight",
        "blocks.1.conv2.weight",
        "conv_hr.weight",
    ]


def test_other_tools_do_not_know_it(spandrel: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spandrel and its imports
        with pytest.raises(spandrel.UnsupportedModelError):
            spandrel.ModelLoader().load_from_state_dict(dict(TINY.build().state_dict()))
