"""Losses against their formulas, computed in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from search.trial.losses import CharbonnierConfig, L1Config, LossConfig, MSEConfig, PSNRConfig

LOSSES: list[LossConfig] = [L1Config(), MSEConfig(), CharbonnierConfig(), PSNRConfig()]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    restored, clean = torch.rand(2, 3, 2, 17, 23, generator=generator)
    return restored, clean


def test_losses_equal_their_formulas(images: tuple[Tensor, Tensor]) -> None:
    restored, clean = (image.double().numpy() for image in images)
    difference = restored - clean
    expected = {
        L1Config(): np.abs(difference).mean(),
        MSEConfig(): (difference**2).mean(),
        CharbonnierConfig(epsilon=0.1): np.sqrt(difference**2 + 0.01).mean(),
        PSNRConfig(): np.mean([10 * math.log10((one**2).mean()) for one in difference]),
    }
    for config, value in expected.items():
        assert config.build()(*images).item() == pytest.approx(value, rel=1e-5), config


def test_psnr_loss_of_one_code_of_error_is_minus_48_db() -> None:
    clean = torch.full((2, 1, 17, 23), 0.5)
    # 20 log10(255) = 48.13 dB
    assert PSNRConfig().build()(clean + 1 / 255, clean).item() == pytest.approx(-48.13, abs=0.01)


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.kind)
def test_identical_images_have_a_finite_loss_and_gradient(config: LossConfig) -> None:
    clean = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    restored = clean.clone().requires_grad_()
    loss = config.build()(restored, clean)
    loss.backward()
    assert math.isfinite(loss.item())
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.kind)
def test_losses_are_float32_scalars_that_fall_towards_the_clean_image(
    config: LossConfig, images: tuple[Tensor, Tensor]
) -> None:
    restored, clean = images
    loss_fn = config.build()
    losses = [loss_fn(clean + share * (restored - clean), clean) for share in (1.0, 0.5, 0.1)]
    assert all(loss.dtype == torch.float32 and loss.shape == () for loss in losses)
    assert losses[0] > losses[1] > losses[2]
