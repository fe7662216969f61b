"""Which networks hold which others: by what they compute, not by their settings alone."""

import pytest
import torch

from models import (
    ClassicalConfig,
    DnCNNConfig,
    KBNetSConfig,
    ModelConfig,
    NAFNetConfig,
    UNetConfig,
    any_wider_or_deeper,
    is_wider_or_deeper,
)
from models.filters import Median
from models.luminance import LuminanceConfig
from models.pix2pix import Pix2PixConfig
from models.srresnet import SRResNetConfig
from models.widening import EXTENSIBLE_SETTINGS

SHAPE = {"encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}
SMALL = KBNetSConfig.model_validate({"channels": 1, "width": 8, **SHAPE})


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 16},
        {"middle_blocks": 3},
        {"encoder_blocks": (1, 2)},
        {"width": 16, "decoder_blocks": (2, 1), "drop_path": 0.2, "recompute": True},
    ],
)
def test_more_channels_or_blocks_outgrow_and_never_the_other_way(changes: dict[str, object]) -> None:
    large = KBNetSConfig.model_validate({**SMALL.model_dump(), **changes})
    assert is_wider_or_deeper(large, SMALL)
    assert not is_wider_or_deeper(SMALL, large)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"drop_path": 0.2},
        {"channels": 3, "width": 16},
        {"lightweight": True, "width": 16},
        {"ffn_scale": 1.5, "width": 16},
        {"width": 16, "encoder_blocks": (1,), "decoder_blocks": (1,)},
        {"encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1)},
    ],
)
def test_same_size_other_kernels_and_other_scales_do_not(changes: dict[str, object]) -> None:
    other = KBNetSConfig.model_validate({**SMALL.model_dump(), **changes})
    assert not is_wider_or_deeper(other, SMALL)
    assert not is_wider_or_deeper(SMALL, other)


def test_one_that_is_wider_but_shallower_does_not() -> None:
    deep = KBNetSConfig.model_validate({**SMALL.model_dump(), "middle_blocks": 3})
    wide = KBNetSConfig.model_validate({**SMALL.model_dump(), "width": 16})
    assert not is_wider_or_deeper(wide, deep)
    assert not any_wider_or_deeper([wide, deep, wide])
    assert any_wider_or_deeper([wide, deep, SMALL])


def test_kinds_do_not_mix_and_filters_have_nothing_to_pass_on() -> None:
    nafnet = NAFNetConfig.model_validate({"channels": 1, "width": 16, **SHAPE})
    assert not is_wider_or_deeper(nafnet, SMALL)
    filters = [ClassicalConfig(channels=1, filter=Median(side=side)) for side in (3, 5)]
    assert not any_wider_or_deeper(filters)


def test_luminance_grows_with_its_network() -> None:
    small, large = (LuminanceConfig(model=DnCNNConfig(width=width, layers=3)) for width in (4, 6))
    assert is_wider_or_deeper(large, small)
    assert any_wider_or_deeper([small, large])


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (SMALL, KBNetSConfig.model_validate({**SMALL.model_dump(), "width": 16, "middle_blocks": 2})),
        (
            NAFNetConfig.model_validate({"channels": 1, "width": 8, **SHAPE}),
            NAFNetConfig.model_validate({"channels": 1, "width": 12, **SHAPE, "encoder_blocks": (2, 1)}),
        ),
        (SRResNetConfig(width=4, blocks=2), SRResNetConfig(width=6, blocks=3)),
        (UNetConfig(width=4, levels=2, blocks=1), UNetConfig(width=8, levels=2, blocks=1)),
        (DnCNNConfig(width=4, layers=4), DnCNNConfig(width=6, layers=4)),
        (Pix2PixConfig(width=4, depth=3), Pix2PixConfig(width=8, depth=3)),
    ],
)
def test_every_weight_of_the_small_one_has_room_under_its_name_in_the_large_one(
    small: ModelConfig, large: ModelConfig
) -> None:
    assert is_wider_or_deeper(large, small)
    ours, theirs = large.build().state_dict(), small.build().state_dict()
    assert theirs.keys() <= ours.keys()
    for name, value in theirs.items():
        room = torch.tensor(ours[name].shape)
        assert (room >= torch.tensor(value.shape)).all(), name


def test_every_growing_setting_is_one() -> None:
    kinds = {"kbnet_s": KBNetSConfig, "nafnet": NAFNetConfig, "srresnet": SRResNetConfig}
    kinds |= {"unet": UNetConfig, "dncnn": DnCNNConfig, "pix2pix": Pix2PixConfig}
    assert EXTENSIBLE_SETTINGS.keys() == kinds.keys()
    for kind, names in EXTENSIBLE_SETTINGS.items():
        assert names <= kinds[kind].model_fields.keys()
