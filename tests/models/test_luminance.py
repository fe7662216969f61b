"""Restoring luminance alone: what the network sees, what becomes of colour, and what gray images do."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from models import ClassicalConfig, DnCNNConfig, KBNetSConfig
from models.luminance import LUMA, Luminance, LuminanceConfig

BODY = DnCNNConfig(width=4, layers=3)


def colours(height: int = 17, width: int = 23) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def ycrcb(images: Tensor) -> np.ndarray:
    """OpenCV's conversion of (N, 3, H, W) images: (N, H, W, 3)."""
    return np.stack([cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2YCrCb) for image in images])


def built(body: object = BODY, channels: int = 3) -> Luminance:
    torch.manual_seed(0)
    return LuminanceConfig(model=body, channels=channels).build().eval()


def test_the_network_sees_y_of_ycbcr_and_its_answer_becomes_y() -> None:
    model, degraded = built(), colours()
    with torch.no_grad():
        restored = model(degraded)
        expected = model.model(torch.from_numpy(ycrcb(degraded)[..., 0])[:, None])[:, 0]
    np.testing.assert_allclose(ycrcb(restored)[..., 0], expected.numpy(), atol=2e-6)
    assert not torch.allclose(restored, degraded, atol=1e-3)


def test_colour_is_that_of_the_degraded_image() -> None:
    degraded = colours()
    with torch.no_grad():
        restored = built()(degraded)
    # OpenCV scales Cr and Cb with three digits.
    np.testing.assert_allclose(ycrcb(restored)[..., 1:], ycrcb(degraded)[..., 1:], atol=1e-3)


def test_luminance_is_that_of_jpeg() -> None:
    codes = (colours()[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    jpeg = np.asarray(Image.fromarray(codes).convert("YCbCr"))[..., 0]
    # Pillow cuts fractions off, and computes in fixed point.
    np.testing.assert_allclose(codes @ np.array(LUMA) - 0.5, jpeg, atol=0.52)


def test_a_network_that_changes_nothing_leaves_every_bit() -> None:
    model = built()
    nn.init.zeros_(model.model.model[-1].weight)
    assert torch.equal(model(colours()), colours())
    assert torch.equal(model.body(colours()), colours())


def test_a_gray_image_is_its_own_luminance() -> None:
    model, gray = built(channels=1), colours()[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(model(gray), model.model(gray), atol=1e-6, rtol=0)


def test_weights_of_gray_and_colour_models_are_those_of_the_network() -> None:
    names = {f"model.{name}" for name in BODY.model_copy(update={"channels": 1}).build().state_dict()}
    assert set(built().state_dict()) == set(built(channels=1).state_dict()) == names


def test_prunable_parameters_are_those_of_the_network_by_their_full_names() -> None:
    body = KBNetSConfig(width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    model = built(body)
    known = dict(model.named_parameters())
    assert len(model.prunable()) == len(model.model.prunable()) > 0
    assert all(known[name] is parameter for name, parameter in model.prunable())


def test_the_network_has_one_channel_whatever_the_images_have() -> None:
    for channels in (1, 3):
        config = LuminanceConfig(model=BODY, channels=channels)
        assert config.model.channels == 1
        assert LuminanceConfig.model_validate_json(config.model_dump_json()) == config
    assert LuminanceConfig.model_validate({"model": {"kind": "dncnn"}}).model.channels == 1


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ({"kind": "dncnn", "channels": 3}, "channels is 3, but luminance has 1"),
        (ClassicalConfig(), "does not match any of the expected tags"),
        (LuminanceConfig(model=BODY), "does not match any of the expected tags"),
    ],
)
def test_what_cannot_restore_luminance_is_refused(inner: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LuminanceConfig.model_validate({"model": inner})
