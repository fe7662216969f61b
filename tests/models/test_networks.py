"""KBNet_s and DnCNN: settings, costs, and what other tools read."""

import warnings

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models import DnCNNConfig, KBNetSConfig, count_macs, count_parameters
from models.layers import LayerNorm2d

TINY = KBNetSConfig(width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1))
PLAIN = DnCNNConfig(width=8, layers=8)
NORMED = DnCNNConfig(width=8, layers=5, batch_norm=True)


def test_dncnn_starts_from_the_degraded_image() -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    restored = DnCNNConfig().build()(degraded)
    assert (restored - degraded).square().mean() < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 12}, "width 12 does not work with 4 levels; allowed: 4, 8, 16, 32, 64, 96"),
        ({"width": 20, "encoder_blocks": (1,), "decoder_blocks": (1,)}, "allowed: 4, 8, 12, 16, 32, 64"),
        ({"decoder_blocks": (1, 1)}, "decoder_blocks has 2 levels, encoder_blocks 4"),
        ({"width": 8, "ffn_scale": 1.3}, "allowed: multiples of 0.25"),
        ({"encoder_blocks": (), "decoder_blocks": ()}, "at least 1"),
        ({"middle_blocks": 0}, "greater than or equal to 1"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        KBNetSConfig.model_validate(settings)
    assert message in str(error.value)


def test_every_width_that_is_allowed_can_be_built() -> None:
    for levels in (1, 2):
        blocks = (1,) * levels
        for width in range(4, 70, 4):
            settings = {
                "width": width,
                "encoder_blocks": blocks,
                "middle_blocks": 1,
                "decoder_blocks": blocks,
            }
            try:
                config = KBNetSConfig.model_validate(settings)
            except ValidationError:
                continue
            config.build()


def test_costs_are_those_of_the_published_tables() -> None:
    """Sizes from the published network; products counted with the ones of the operator (48.61 of 117.30 G)."""
    with torch.device("meta"):
        model = KBNetSConfig(width=64).build()
    assert count_parameters(model) == 141_966_659
    assert round(count_macs(model, 3, 256, 256) / 1e9, 2) == 117.30
    with torch.device("meta"):
        gray = DnCNNConfig(channels=1, batch_norm=True).build()
    assert count_macs(gray, 1, 10, 10) == 100 * 9 * (64 + 15 * 64 * 64 + 64)


def test_prunable_leaves_first_and_last_layer_norms_and_channel_attention_dense() -> None:
    names = [name for name, _ in TINY.build().prunable()]
    assert {"encoders.0.0.w", "middle_blks.0.conv21.weight", "downs.0.weight", "ups.1.0.weight"} <= set(names)
    assert not [name for name in names if "sca" in name or "norm" in name or name.endswith(("bias", ".b"))]
    assert not [name for name in names if name.startswith(("intro", "ending"))]
    assert [name for name, _ in NORMED.build().prunable()] == [
        "model.2.weight",
        "model.5.weight",
        "model.8.weight",
    ]


def test_layer_norm_equals_its_formula_in_float64() -> None:
    torch.manual_seed(0)
    norm = LayerNorm2d(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(2, 8, 17, 23) + 100
    wide = images.double()
    centred = wide - wide.mean(1, keepdim=True)
    scale = (centred.square().mean(1, keepdim=True) + 1e-6).rsqrt()
    expected = centred * scale * norm.weight.double().view(8, 1, 1) + norm.bias.double().view(8, 1, 1)
    assert (norm(images) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "config",
    [TINY, TINY.model_copy(update={"channels": 1, "lightweight": True, "ffn_scale": 1.5}), PLAIN, NORMED],
    ids=["kbnet_s", "kbnet_s_lightweight", "dncnn_r", "dncnn_br"],
)
def test_other_tools_restore_the_same_pixels(config: KBNetSConfig | DnCNNConfig, spandrel: object) -> None:
    torch.manual_seed(0)
    model = config.build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spandrel and its imports
        loaded = spandrel.ModelLoader().load_from_state_dict(dict(model.state_dict())).eval()  # type: ignore[attr-defined]
    degraded = torch.rand(1, config.channels, 16, 24)
    with torch.no_grad():
        expected = loaded.model(degraded)
        assert (model(degraded) - expected).norm() < 1e-5 * expected.norm()
