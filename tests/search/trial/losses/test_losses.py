"""Losses against their formulas, computed in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from search.trial import TrialConfig
from search.trial.losses.image_losses import LossConfig, SumConfig, TermConfig
from search.trial.losses.perceptual import PerceptualConfig
from search.trial.losses.pixel import (
    CharbonnierConfig,
    FourierConfig,
    GradientConfig,
    L1Config,
    MSEConfig,
    MSSSIMConfig,
    PSNRConfig,
    SSIMConfig,
)
from search.trial.training import TrialResult

L1_AND_SSIM = SumConfig(
    terms={"pixels": TermConfig(loss=L1Config()), "structure": TermConfig(weight=0.2, loss=SSIMConfig())}
)
LOSSES: list[LossConfig] = [
    L1Config(),
    MSEConfig(),
    CharbonnierConfig(),
    PSNRConfig(),
    SSIMConfig(),
    SSIMConfig(window=3),
    MSSSIMConfig(window=3),
    GradientConfig(),
    FourierConfig(),
    L1_AND_SSIM,
]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    restored, clean = torch.rand(2, 3, 2, 35, 47, generator=generator)
    return restored, clean


def test_losses_equal_their_formulas(images: tuple[Tensor, Tensor]) -> None:
    restored, clean = (image.double().numpy() for image in images)
    difference = restored - clean
    spectrum = np.fft.rfft2(difference, norm="ortho")
    edges = [difference[:, :, 1:] - difference[:, :, :-1], difference[..., 1:] - difference[..., :-1]]
    expected = {
        L1Config(): np.abs(difference).mean(),
        MSEConfig(): (difference**2).mean(),
        CharbonnierConfig(epsilon=0.1): np.sqrt(difference**2 + 0.01).mean(),
        PSNRConfig(): np.mean([10 * math.log10((one**2).mean()) for one in difference]),
        FourierConfig(): np.hypot(spectrum.real, spectrum.imag).mean(),
        GradientConfig(): np.mean([np.abs(edge).mean() for edge in edges]),
    }
    for config, value in expected.items():
        assert config.build()(*images).item() == pytest.approx(value, rel=1e-5), config


def smooth(images: tuple[Tensor, Tensor]) -> list[NDArray[np.float64]]:
    """Images with structure at all scales, in which the two agree in part."""
    restored, clean = (image.double().numpy() for image in images)
    blurred = gaussian_filter(clean, sigma=(0, 0, 3, 3))
    return [np.clip(3 * (blurred - 0.5) + 0.5 + 0.2 * (noise - 0.5), 0, 1) for noise in (restored, clean)]


def test_ssim_is_the_one_of_scikit_image(images: tuple[Tensor, Tensor]) -> None:
    restored, clean = smooth(images)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    indices = [
        structural_similarity(*pair, data_range=1.0, channel_axis=0, **options)
        for pair in zip(restored, clean, strict=True)
    ]
    loss = SSIMConfig().build()(torch.tensor(restored).float(), torch.tensor(clean).float())
    assert 0.1 < np.mean(indices) < 0.9
    assert loss.item() == pytest.approx(1 - np.mean(indices), abs=1e-5)


def test_ms_ssim_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, clean = torch.rand(2, 2, 3, 48, 64, generator=generator)
    x, y = restored, clean = smooth((noise, clean))
    index, exponents = np.ones((2, 3)), [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    for scale, exponent in enumerate(exponents):

        def local(image: NDArray[np.float64]) -> NDArray[np.float64]:
            return gaussian_filter(image, sigma=(0, 0, 1.5, 1.5), radius=(0, 0, 1, 1))[..., 1:-1, 1:-1]

        variances = local(x * x) - local(x) ** 2 + local(y * y) - local(y) ** 2
        term = (2 * (local(x * y) - local(x) * local(y)) + 0.03**2) / (variances + 0.03**2)
        if scale == 4:
            term *= (2 * local(x) * local(y) + 0.01**2) / (local(x) ** 2 + local(y) ** 2 + 0.01**2)
        index *= term.mean(axis=(2, 3)) ** exponent
        x, y = (
            (a[..., ::2, ::2] + a[..., 1::2, ::2] + a[..., ::2, 1::2] + a[..., 1::2, 1::2]) / 4
            for a in (x[..., : x.shape[-2] // 2 * 2, :], y[..., : y.shape[-2] // 2 * 2, :])
        )
    loss = MSSSIMConfig(window=3).build()(torch.tensor(restored).float(), torch.tensor(clean).float())
    assert 0.1 < index.mean() < 0.9
    assert loss.item() == pytest.approx(1 - index.mean(), abs=1e-5)


def test_spectral_error_of_noise_is_the_same_for_crops_of_any_size() -> None:
    generator = torch.Generator().manual_seed(0)
    loss_fn = FourierConfig().build()
    small, large = (
        loss_fn(0.1 * torch.randn(4, 3, side, side, generator=generator), torch.zeros(4, 3, side, side))
        for side in (32, 128)
    )
    assert small.item() == pytest.approx(large.item(), rel=0.05)


def test_sum_is_the_weighted_sum_of_its_terms(images: tuple[Tensor, Tensor]) -> None:
    terms = {
        "coarse": {"weight": 0.5, "loss": {"kind": "ssim", "window": 11}},
        "fine": {"weight": 2.0, "loss": {"kind": "ssim", "window": 3}},
        "pixels": {"loss": {"kind": "mse"}},
    }
    expected = sum(
        weight * config.build()(*images).item()
        for weight, config in [(0.5, SSIMConfig()), (2.0, SSIMConfig(window=3)), (1.0, MSEConfig())]
    )
    config = SumConfig.model_validate({"terms": terms})
    assert config.build()(*images).item() == pytest.approx(expected, rel=1e-5)
    assert config.smallest_patch == 11
    assert SumConfig.model_validate_json(config.model_dump_json()) == config


def test_sum_costs_what_its_terms_cost() -> None:
    features = PerceptualConfig()
    config = SumConfig(terms={"l1": TermConfig(loss=L1Config()), "vgg": TermConfig(loss=features)})
    assert config.macs(1, 32) == features.macs(1, 32) > 0


@pytest.mark.parametrize(
    "loss", [{"kind": "sum", "terms": {"l1": {"loss": {"kind": "l1"}}}}, {"kind": "adversarial"}]
)
def test_only_plain_losses_are_terms_of_a_sum(loss: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        SumConfig.model_validate({"terms": {"inner": {"loss": loss}}})


@pytest.mark.parametrize(
    "config",
    [SSIMConfig(), SSIMConfig(window=5), MSSSIMConfig(window=3), MSSSIMConfig(window=5), GradientConfig()],
    ids=str,
)
def test_smallest_patch_can_be_judged(config: LossConfig) -> None:
    side = config.smallest_patch
    clean = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    loss_fn = config.build()
    assert loss_fn(clean, clean).item() == pytest.approx(0, abs=1e-6)
    assert 0 < loss_fn((clean + clean.mT) / 2, clean).item() < 1


def test_crops_below_the_smallest_patch_are_refused(config: Callable[..., TrialConfig]) -> None:
    crops = {"batch": 2, "patch": 32}
    assert config(crops=crops, loss={"kind": "ssim"}).crops.patch == 32
    with pytest.raises(ValidationError, match=r"crops\.patch is 32, but loss 'ms_ssim' as set needs 33"):
        config(crops=crops, loss={"kind": "ms_ssim", "window": 3})
    with pytest.raises(ValidationError, match=r"crops\.patch is 32, but loss 'sum' as set needs 161"):
        config(crops=crops, loss={"kind": "sum", "terms": {"ms": {"loss": {"kind": "ms_ssim"}}}})


class Witness(nn.Module):
    """L1 that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, torch.dtype, bool]] = []

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        self.seen.append((restored.dtype, clean.dtype, torch.is_autocast_enabled("cpu")))
        return (restored - clean).abs().mean()


@pytest.mark.parametrize(
    "loss", [{"kind": "l1"}, {"kind": "adversarial", "critic": {"width": 4, "layers": 1}}]
)
def test_losses_are_given_float32_outside_autocast(
    loss: dict[str, object],
    config: Callable[..., TrialConfig],
    run: Callable[..., TrialResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    witness = Witness()
    monkeypatch.setattr(L1Config, "build", lambda self: witness)
    run(config(loss=loss, precision="bf16", steps=2), tmp_path)
    assert witness.seen == [(torch.float32, torch.float32, False)] * 2


def test_psnr_loss_of_one_code_of_error_is_minus_48_db() -> None:
    clean = torch.full((2, 1, 17, 23), 0.5)
    # 20 log10(255) = 48.13 dB
    assert PSNRConfig().build()(clean + 1 / 255, clean).item() == pytest.approx(-48.13, abs=0.01)


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_identical_images_have_a_finite_loss_and_gradient(config: LossConfig) -> None:
    clean = torch.rand(2, 1, 35, 47, generator=torch.Generator().manual_seed(0))
    restored = clean.clone().requires_grad_()
    loss = config.build()(restored, clean)
    loss.backward()
    assert math.isfinite(loss.item())
    assert restored.grad is not None
    assert restored.grad.isfinite().all()


@pytest.mark.parametrize("config", LOSSES, ids=str)
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_flat_and_inverted_images_have_a_finite_gradient(config: LossConfig, value: float) -> None:
    clean = torch.rand(2, 1, 35, 47, generator=torch.Generator().manual_seed(0))
    for image in (torch.full_like(clean, value), 1 - clean):
        restored = image.requires_grad_()
        config.build()(restored, clean).backward()
        assert restored.grad is not None
        assert restored.grad.isfinite().all()


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_losses_are_float32_scalars_that_fall_towards_the_clean_image(
    config: LossConfig, images: tuple[Tensor, Tensor]
) -> None:
    restored, clean = images
    loss_fn = config.build()
    losses = [loss_fn(clean + share * (restored - clean), clean) for share in (1.0, 0.5, 0.1)]
    assert all(loss.dtype == torch.float32 and loss.shape == () for loss in losses)
    assert losses[0] > losses[1] > losses[2]
