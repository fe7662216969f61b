"""Metrics against scikit-image and against formulas."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from search.inference import to_codes
from search.inference.metrics import IDENTICAL_PSNR_DB, mae, psnr_db, ssim

Codes = NDArray[np.uint8]
SIZES = [(1, 1), (1, 40), (2, 5), (3, 3), (7, 7), (10, 12), (11, 11), (17, 23)]


def two_images(height: int, width: int, channels: int = 3, seed: int = 0) -> tuple[Codes, Codes]:
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    noise = rng.integers(-20, 21, clean.shape)
    return (clean + noise).clip(0, 255).astype(np.uint8), clean


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_equals_that_of_scikit_image(channels: int) -> None:
    restored, clean = two_images(17, 23, channels)
    expected = peak_signal_noise_ratio(clean, restored, data_range=255)
    assert psnr_db(restored, clean) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_that_of_wang_in_scikit_image(channels: int) -> None:
    restored, clean = two_images(17, 23, channels)
    expected = structural_similarity(
        clean,
        restored,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(restored, clean) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_a_single_window_equals_its_formula() -> None:
    restored, clean = (image[..., 0].astype(float) for image in two_images(7, 7, 1))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = np.cov(
        restored.ravel(), clean.ravel()
    )  # sample covariance, as scikit-image's plain window has
    expected = (2 * restored.mean() * clean.mean() + c1) * (2 * covariance[0, 1] + c2)
    expected /= (restored.mean() ** 2 + clean.mean() ** 2 + c1) * (covariance.trace() + c2)
    codes = (restored.astype(np.uint8)[..., None], clean.astype(np.uint8)[..., None])
    assert ssim(*codes) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_metrics_of_odd_and_tiny_images_are_finite_and_in_range(size: tuple[int, int]) -> None:
    restored, clean = two_images(*size)
    assert 0 < psnr_db(restored, clean) < IDENTICAL_PSNR_DB
    assert -1 <= ssim(restored, clean) <= 1
    assert 0 < mae(restored, clean) <= 1


@pytest.mark.parametrize("size", SIZES)
def test_identical_images_score_finite_and_best(size: tuple[int, int]) -> None:
    _, clean = two_images(*size)
    assert math.isfinite(psnr_db(clean, clean))
    assert ssim(clean, clean) == pytest.approx(1.0)
    assert mae(clean, clean) == 0


def test_one_wrong_code_in_a_large_image_scores_below_an_identical_image() -> None:
    clean = np.zeros((3000, 3000, 1), np.uint8)
    restored = clean.copy()
    restored[0, 0, 0] = 1
    assert psnr_db(restored, clean) < psnr_db(clean, clean)


def test_mae_is_the_mean_difference_in_units_of_the_full_range() -> None:
    restored, clean = two_images(17, 23)
    expected = np.abs(restored / 255 - clean / 255).mean()
    assert mae(restored, clean) == pytest.approx(expected, abs=1e-12)


def test_codes_are_rounded_and_clipped_not_wrapped() -> None:
    image = torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 254.4 / 255, 1.0, 1.7]).reshape(1, 1, 7)
    assert to_codes(image).ravel().tolist() == [0, 0, 0, 1, 254, 255, 255]


def test_codes_of_an_8_bit_image_are_that_image() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    image = torch.from_numpy(codes.astype(np.float32) / 255).permute(2, 0, 1)
    assert np.array_equal(to_codes(image), codes)
