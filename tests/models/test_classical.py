"""Classical filters against slow loops and other libraries, and as a model in the place of a network."""

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import pywt
import scipy.ndimage
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from models import ClassicalConfig, count_macs, count_parameters
from models.filters import (
    BackgroundDivision,
    Bilateral,
    FilterConfig,
    Gaussian,
    Guided,
    Median,
    NonLocalMeans,
    TotalVariation,
    Unchanged,
    Wavelet,
)

KINDS = get_args(get_args(FilterConfig)[0])
Image = NDArray[np.float32]


def scene(height: int = 17, width: int = 23, channels: int = 1) -> Image:
    """Smooth shapes with noise, as 8-bit codes over 255."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    smooth = 120 + 80 * np.sin(x / 3) * np.cos(y / 4)
    noisy = smooth[..., None] + rng.normal(0, 15, (height, width, channels))
    return (noisy.round().clip(0, 255) / 255).astype(np.float32)


def windows(image: Image, radius: int) -> Any:
    """(H, W, side, side): what is around each pixel of a plane, mirrored beyond the border."""
    padded = np.pad(image[..., 0].astype(float), radius, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))


def planes(image: Image, work: Any) -> Any:
    return np.stack([work(image[..., index]) for index in range(image.shape[2])], axis=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_gaussian_and_median_equal_those_of_scipy(channels: int) -> None:
    image = scene(channels=channels)
    blurred = planes(image, lambda plane: scipy.ndimage.gaussian_filter(plane, 0.8, mode="mirror"))
    np.testing.assert_allclose(Gaussian(sigma=0.8).apply(image), blurred, atol=1e-4)
    middle = planes(image, lambda plane: scipy.ndimage.median_filter(plane, 5, mode="nearest"))
    np.testing.assert_allclose(Median(side=5).apply(image), middle, atol=1e-6)


def test_bilateral_equals_its_definition() -> None:
    image = scene()
    around = windows(image, 2)
    dy, dx = np.mgrid[-2:3, -2:3]
    near = np.exp(-(dx**2 + dy**2) / (2 * 1.5**2)) * (dx**2 + dy**2 <= 4)
    alike = np.exp(-(((around - image[..., None]) * 255) ** 2) / (2 * 20**2))
    weights = near * alike
    expected = (weights * around).sum((2, 3)) / weights.sum((2, 3))
    restored = Bilateral(diameter=5, distance=1.5, difference=20).apply(image)
    np.testing.assert_allclose(restored[..., 0], expected, atol=1e-3)


def test_non_local_means_equals_its_definition() -> None:
    image = scene()
    codes = image[..., 0].astype(float) * 255
    padded = np.pad(codes, 3, mode="reflect")
    restored = np.empty_like(codes)
    for y, x in np.ndindex(codes.shape):
        middle = padded[y + 2 : y + 5, x + 2 : x + 5]
        weights, values = [], []
        for dy, dx in itertools.product(range(-2, 3), repeat=2):
            other = padded[y + 2 + dy : y + 5 + dy, x + 2 + dx : x + 5 + dx]
            weights.append(np.exp(-np.mean((middle - other) ** 2) / 20**2))
            values.append(other[1, 1])
        restored[y, x] = np.average(values, weights=weights)
    found = NonLocalMeans(strength=20, template=3, window=5).apply(image)[..., 0] * 255
    assert np.abs(found - restored).max() <= 1  # OpenCV's weights are in fixed point
    assert np.abs(codes - restored).max() > 5


def test_non_local_means_knows_red_from_blue() -> None:
    """Lightness weighs red three times as much as blue: noise in red alone is found and removed as such."""
    rng = np.random.default_rng(0)
    left: dict[int, float] = {}
    for channel in (0, 2):
        image = np.full((33, 47, 3), 128.0)
        image[..., channel] += rng.normal(0, 20, image.shape[:2])
        noisy = (image.round() / 255).astype(np.float32)
        restored = NonLocalMeans(strength=6, colour_ratio=0.01).apply(noisy)
        left[channel] = float(restored[..., channel].std())
    assert left[0] < left[2]


def test_guided_filter_equals_fits_of_lines_in_every_window() -> None:
    image = scene()
    radius, epsilon = 2, (10 / 255) ** 2
    around = windows(image, radius)
    slope = around.var((2, 3)) / (around.var((2, 3)) + epsilon)
    offset = around.mean((2, 3)) * (1 - slope)
    slopes, offsets = (windows(part[..., None], radius).mean((2, 3)) for part in (slope, offset))
    restored = Guided(radius=radius, edge=10).apply(image)
    np.testing.assert_allclose(restored[..., 0], slopes * image[..., 0] + offsets, atol=1e-5)


def test_wavelet_thresholds_are_those_of_the_formula() -> None:
    image = scene(32, 32)
    approximation, *details = pywt.wavedec2(image[..., 0].astype(float), "haar", level=2)
    threshold = 10 / 255 * np.sqrt(2 * np.log(image.size))
    shrunk = [tuple(pywt.threshold(band, threshold, "soft") for band in level) for level in details]
    expected = pywt.waverec2([approximation, *shrunk], "haar")
    restored = Wavelet(noise=10, wavelet="haar", threshold="visu").apply(image)
    np.testing.assert_allclose(restored[..., 0], expected, atol=1e-5)


def test_total_variation_brings_the_halves_of_a_step_nearer_by_weight_over_width() -> None:
    step = np.zeros((1, 20, 1), np.float32)
    step[:, 10:] = 0.5
    restored = TotalVariation(weight=0.2 * 255).apply(step)[0, :, 0]
    assert restored[:10].mean() == pytest.approx(0.02, abs=1e-3)
    assert restored[10:].mean() == pytest.approx(0.48, abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_background_division_equals_the_same_steps_in_scipy(channels: int) -> None:
    image = scene(channels=channels)
    paper = planes(
        image,
        lambda plane: scipy.ndimage.median_filter(
            scipy.ndimage.grey_dilation(plane, (3, 3), mode="nearest"), 7, mode="nearest"
        ),
    )
    expected = ((image / paper - 0.1) / 0.8).clip(0, 1)
    restored = BackgroundDivision(dilation=3, median=7, black=0.1, white=0.9).apply(image)
    np.testing.assert_allclose(restored, expected, atol=1e-5)


def test_background_division_finds_the_ink_on_a_shaded_page() -> None:
    share = np.ones((40, 60), np.float32)
    share[10:30:5, 5:55] = 0.2  # lines of ink
    shaded = share * np.linspace(0.5, 0.9, 60, dtype=np.float32)
    restored = BackgroundDivision(dilation=5, median=7).apply(shaded[..., None])[..., 0]
    assert np.abs(restored - share).max() < 0.1


def test_what_is_unchanged_is_equal_bit_for_bit() -> None:
    image = scene(channels=3)
    assert np.array_equal(Unchanged().apply(image), image)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_images_of_a_batch_do_not_mix_and_the_input_is_left_alone(kind: Any) -> None:
    model = ClassicalConfig(filter=kind()).build()
    torch.manual_seed(0)
    degraded = torch.rand(3, 3, 17, 23, requires_grad=True)
    before = degraded.detach().clone()
    restored = model(degraded)
    assert torch.equal(degraded, before)
    for index in range(3):
        assert torch.equal(restored[index : index + 1], model(degraded[index : index + 1]))
    assert not restored.requires_grad


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_flat_images_stay_flat(kind: Any, channels: int) -> None:
    model = ClassicalConfig(channels=channels, filter=kind()).build()
    for height, width in ((1, 1), (2, 40), (17, 23)):
        for value in (0.0, 1.0):
            flat = torch.full((1, channels, height, width), value)
            assert (model(flat) - flat).abs().max() < 1.01 / 255


def test_filters_cost_no_parameters_and_no_products() -> None:
    model = ClassicalConfig().build()
    assert count_parameters(model) == 0
    assert count_macs(model, 3, 256, 256) == 0
    assert model.prunable() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "median", "side": 4}, "its side is odd: 3 or 5"),
        ({"kind": "non_local_means", "window": 20}, "its side is odd: 19 or 21"),
        (
            {"kind": "background_division", "black": 0.9, "white": 0.8},
            "black (0.9) must be below white (0.8)",
        ),
        ({"kind": "wavelet", "wavelet": "db9"}, "'haar', 'db2' or 'sym4'"),
        ({"kind": "gaussian", "radius": 2}, "Extra inputs"),
        ({"kind": "sharpen"}, "does not match any of the expected tags"),
    ],
)
def test_what_no_filter_can_do_is_refused_with_what_it_can(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        ClassicalConfig.model_validate({"filter": settings})
    assert message in str(error.value)
