"""One small configuration of every model, for the tests that hold for all of them."""

from dataclasses import dataclass
from typing import Any, get_args

import pytest

from models import ClassicalConfig, DnCNNConfig, KBNetSConfig, NAFNetConfig, UNetConfig
from models.filters import FilterConfig
from models.luminance import LuminanceConfig
from models.pix2pix import Pix2PixConfig
from models.srresnet import SRResNetConfig

FILTERS = get_args(get_args(FilterConfig)[0])


@dataclass(frozen=True)
class Example:
    """A model small enough for a test."""

    name: str
    config: Any
    silent: tuple[str, ...] = ()
    """Endings of parameter names without gradient, as a norm that follows cancels them or a factor is zero yet."""


NAFNET_BRANCHES = ("norm1", "conv1", "conv2", "sca.1", "conv3", "norm2", "conv4", "conv5")


EXAMPLES = [
    Example("kbnet_s", KBNetSConfig(width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1))),
    Example(
        "nafnet",
        NAFNetConfig(width=6, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1)),
        silent=tuple(f"{layer}.{kind}" for layer in NAFNET_BRANCHES for kind in ("weight", "bias")),
    ),
    Example("unet_add", UNetConfig(width=4, levels=2, blocks=1)),
    Example(
        "unet_concat_glu",
        UNetConfig(
            width=6,
            levels=1,
            blocks=1,
            skip="concat",
            activation="glu",
            global_residual=True,
            noise_map=False,
        ),
    ),
    Example("dncnn_r", DnCNNConfig(width=8, layers=8)),
    Example("dncnn_br", DnCNNConfig(width=8, layers=5, batch_norm=True), silent=("bias",)),
    Example("srresnet_basic", SRResNetConfig(width=8, blocks=2)),
    Example(
        "srresnet_bottleneck_batch_prelu",
        SRResNetConfig(width=8, blocks=1, block="bottleneck", norm="batch", activation="prelu"),
    ),
    Example(
        "srresnet_layer_glu",
        SRResNetConfig(width=8, blocks=1, norm="layer", activation="glu", residual_scale=0.5),
    ),
    Example(
        "srresnet_group_silu",
        SRResNetConfig(width=8, blocks=1, norm="group", activation="silu", channel_normalize="input"),
    ),
    Example(
        "srresnet_instance_gelu",
        SRResNetConfig(
            width=8, blocks=1, norm="instance", activation="gelu", channel_normalize="input_and_output"
        ),
    ),
    Example("pix2pix_batch", Pix2PixConfig(width=8, depth=4)),
    Example(
        "pix2pix_instance",
        Pix2PixConfig(width=8, depth=3, norm="instance", dropout=0.0, output="residual"),
        silent=("bias",),
    ),
    Example("pix2pix_no_norm", Pix2PixConfig(width=4, depth=3, norm="none", dropout=0.2)),
    Example(
        "luminance_nafnet",
        LuminanceConfig(
            model=NAFNetConfig(width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
        ),
        silent=tuple(f"{layer}.{kind}" for layer in NAFNET_BRANCHES for kind in ("weight", "bias")),
    ),
    Example("luminance_dncnn", LuminanceConfig(model=DnCNNConfig(width=8, layers=4))),
    *(Example(kind.__name__.lower(), ClassicalConfig(filter=kind())) for kind in FILTERS),
]


def each(**options: Any) -> pytest.MarkDecorator:
    """Runs a test once for each example."""
    return pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name, **options)
