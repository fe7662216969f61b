"""The U-Net: the published DRUNet where it has its form, refused by other tools where it has not."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import UNetConfig, count_macs, count_parameters
from models.unet import UNet

DRUNET = UNetConfig(width=8, blocks=2)


def trained(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    model = config.build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def restored_by_other_tools(spandrel: Any, weights: dict[str, Tensor], degraded: Tensor) -> Tensor | None:
    """What spandrel makes of an image with these weights; None if it does not load them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spandrel and its imports
        try:
            loaded = spandrel.ModelLoader().load_from_state_dict(weights).eval()
        except (RuntimeError, spandrel.UnsupportedModelError):
            return None
    assert loaded.architecture.id == "DRUNet"
    with torch.no_grad():
        return loaded(degraded)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 1},
        {"blocks": 3, "width": 6},
        {"blocks": 1},
        {"levels": 2},
        {"levels": 4},
        {"skip": "concat"},
        {"activation": "silu"},
        {"activation": "prelu"},
        {"global_residual": True},
        {"noise_map": False},
    ],
    ids=str,
)
def test_other_tools_restore_the_same_pixels_or_refuse(changes: dict[str, Any], spandrel: Any) -> None:
    config = DRUNET.model_copy(update=changes)
    model = trained(config)
    degraded = torch.rand(1, config.channels, 16, 24)
    found = restored_by_other_tools(spandrel, dict(model.state_dict()), degraded)
    assert (found is not None) == config.is_drunet
    if found is not None:
        with torch.no_grad():
            assert (model(degraded).clamp(0, 1) - found).norm() < 1e-5 * found.norm()


def test_costs_are_those_of_the_published_drunet() -> None:
    with torch.device("meta"):
        model = UNetConfig().build()
    assert UNetConfig().is_drunet
    assert count_parameters(model) == 32_640_960
    assert round(count_macs(model, 3, 256, 256) / 1e9, 2) == 138.78


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_fresh_network_with_a_global_residual_returns_nearly_the_degraded_image(levels: int) -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    config = UNetConfig(width=8, levels=levels, blocks=2, global_residual=True)
    assert (config.build()(degraded) - degraded).square().mean() < 1e-4


def test_joining_with_the_same_kernels_for_both_sides_is_adding() -> None:
    config = UNetConfig(width=4, levels=2, blocks=1, global_residual=True)
    adding, joining = trained(config), config.model_copy(update={"skip": "concat"}).build().eval()
    weights = adding.state_dict()
    for name in ("m_up2.0.weight", "m_up1.0.weight"):
        weights[name] = torch.cat((weights[name], weights[name]), 0)
    weights["m_tail.weight"] = torch.cat((weights["m_tail.weight"], weights["m_tail.weight"]), 1)
    joining.load_state_dict(weights)
    degraded = torch.rand(1, 3, 17, 23)
    with torch.no_grad():
        expected = adding(degraded)
        assert (joining(degraded) - expected).norm() < 1e-5 * expected.norm()


def test_without_a_noise_map_brightness_scales_through_the_network() -> None:
    model = trained(UNetConfig(width=4, levels=1, blocks=1, noise_map=False))
    degraded = torch.rand(1, 3, 17, 23)
    with torch.no_grad():
        assert torch.allclose(model(0.5 * degraded), 0.5 * model(degraded), atol=1e-6)


def test_prunable_leaves_the_ends_dense() -> None:
    names = {
        name for name, _ in UNetConfig(width=4, levels=1, blocks=1, activation="prelu").build().prunable()
    }
    inner = {
        f"{stage}.res.{layer}.weight" for stage in ("m_down1.0", "m_body.0", "m_up1.1") for layer in (0, 2)
    }
    assert names == inner | {"m_down1.1.weight", "m_up1.0.weight"}
