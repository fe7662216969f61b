"""NAFNet: published sizes, the same pixels in other tools, and a network whose blocks do something."""

import warnings
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models import NAFNetConfig, count_macs, count_parameters
from models.nafnet import NAFNet

TINY = NAFNetConfig(width=6, encoder_blocks=(1, 2), middle_blocks=1, decoder_blocks=(2, 1))


def trained(config: NAFNetConfig) -> NAFNet:
    """A network as after training: no factor is zero."""
    torch.manual_seed(0)
    model = config.build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    ("width", "parameters", "gmacs"), [(32, 29_159_715, 16.05), (64, 115_982_915, 63.24)]
)
def test_costs_are_those_of_the_published_networks(width: int, parameters: int, gmacs: float) -> None:
    with torch.device("meta"):
        model = NAFNetConfig(width=width).build()
    assert count_parameters(model) == parameters
    assert round(count_macs(model, 3, 256, 256) / 1e9, 2) == gmacs


@pytest.mark.parametrize("channels", [1, 3])
def test_other_tools_restore_the_same_pixels(channels: int, spandrel: Any) -> None:
    model = trained(TINY.model_copy(update={"channels": channels}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spandrel and its imports
        loaded = spandrel.ModelLoader().load_from_state_dict(dict(model.state_dict())).eval()
    assert loaded.architecture.id == "NAFNet"
    degraded = torch.rand(1, channels, 17, 23)
    with torch.no_grad():
        expected = loaded.model(degraded)
        assert (model(degraded) - expected).norm() < 1e-5 * expected.norm()


def test_fresh_network_returns_nearly_the_degraded_image() -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    restored = TINY.build()(degraded)
    assert (restored - degraded).square().mean() < 1e-4


def test_gradients_reach_every_parameter_once_no_factor_is_zero() -> None:
    model = trained(TINY)
    (model(torch.rand(2, 3, 17, 23)) * torch.randn(2, 3, 17, 23)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_sums_over_blocks_are_not_rounded_under_autocast() -> None:
    kinds = set()
    model = trained(TINY)
    for stage in (*model.encoders, model.middle_blks, *model.decoders):
        stage.register_forward_hook(lambda _, __, result: kinds.add(result.dtype))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(torch.rand(1, 3, 17, 23))
    assert kinds == {torch.float32}


def test_prunable_leaves_ends_factors_norms_and_channel_attention_dense() -> None:
    names = {name for name, _ in TINY.build().prunable()}
    assert {
        "encoders.1.1.conv2.weight",
        "middle_blks.0.conv5.weight",
        "downs.0.weight",
        "ups.1.0.weight",
    } <= names
    parts = ("intro", "ending", "sca", "norm", "beta", "gamma", "bias")
    assert not [name for name in names if any(part in name for part in parts)]


def test_unequal_numbers_of_levels_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="decoder_blocks has 2 levels, encoder_blocks 4; they must be equal"
    ):
        NAFNetConfig(decoder_blocks=(1, 1))
