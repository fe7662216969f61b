"""KBNet_s and DnCNN: sizes, precision, settings, what other tools read, what is exported."""

import logging
import warnings
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from models import DnCNNConfig, KBNetSConfig, ModelConfig
from models.blocks import LayerNorm2d
from models.cost import count_macs, count_parameters

TINY = KBNetSConfig(width=8, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1))
PLAIN = DnCNNConfig(width=8, layers=8)
NORMED = DnCNNConfig(width=8, layers=5, batch_norm=True)
CONFIGS = [TINY, PLAIN, NORMED]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_size_keeps_its_shape(config: KBNetSConfig | DnCNNConfig, channels: int) -> None:
    model = config.model_copy(update={"channels": channels}).build().eval()
    for height, width in ((1, 1), (1, 9), (5, 2), (17, 23)):
        restored = model(torch.rand(2, channels, height, width))
        assert restored.shape == (2, channels, height, width)
        assert restored.dtype == torch.float32


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_gradients_reach_every_parameter(config: KBNetSConfig | DnCNNConfig) -> None:
    torch.manual_seed(0)
    model = config.build()
    (model(torch.rand(2, 3, 17, 23)) * torch.randn(2, 3, 17, 23)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if not (
            config.kind == "dncnn" and config.batch_norm and name.endswith("bias")
        ):  # the norm cancels it
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("config", [TINY, PLAIN], ids=lambda config: config.kind)
def test_autocast_rounds_the_change_but_not_the_image(config: KBNetSConfig | DnCNNConfig) -> None:
    torch.manual_seed(0)
    model = config.build()
    degraded = torch.rand(1, 3, 17, 23)
    exact = model(degraded)
    with torch.autocast("cpu", torch.bfloat16):
        restored = model(degraded)
    assert restored.dtype == torch.float32
    change = (exact - degraded).abs().max()
    assert (restored - exact).abs().max() < 0.02 * change
    (restored**2).mean().backward()


def test_dncnn_starts_from_the_degraded_image() -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    restored = DnCNNConfig().build()(degraded)
    assert (restored - degraded).square().mean() < 1e-3


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_settings_survive_json(config: KBNetSConfig | DnCNNConfig) -> None:
    known: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    assert known.validate_json(config.model_dump_json()) == config


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


def exported(model: nn.Module, channels: int, path: Path) -> Path:
    """The model without padding, as ONNX for any height and width."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, degraded: Tensor) -> Tensor:
            return model.body(degraded)  # type: ignore[no-any-return, operator]

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of onnxscript and copyreg
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            Body().eval(),
            (torch.rand(1, channels, 16, 24),),
            str(path),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"degraded": sides},
            input_names=["degraded"],
            output_names=["restored"],
        )
    return path


ONE_LEVEL = KBNetSConfig(width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))


@pytest.mark.parametrize("config", [ONE_LEVEL, PLAIN], ids=lambda config: config.kind)
def test_onnx_equals_torch_at_three_odd_sizes(
    config: KBNetSConfig | DnCNNConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    from models.padding import crop_like, pad_to_multiple

    caplog.set_level(logging.ERROR)
    torch.manual_seed(0)
    model = config.build().eval()
    session = onnxruntime.InferenceSession(str(exported(model, 3, tmp_path / "model.onnx")))
    for height, width in ((17, 23), (33, 47), (21, 10)):
        degraded = torch.rand(1, 3, height, width)
        padded = pad_to_multiple(degraded, model.size_multiple)
        (restored,) = session.run(None, {"degraded": padded.numpy()})
        with torch.no_grad():
            assert (crop_like(torch.from_numpy(restored), degraded) - model(degraded)).abs().max() < 1e-5
