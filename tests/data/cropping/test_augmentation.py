"""Varied crops: what happens to them, how often, on which sides, and what becomes of the noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from data import TrainLoader
from data.cropping import Augmentation
from data.files import Pixels
from data.sources import PairSet, SyntheticConfig
from data.sources.pairs import FolderPairs
from data.sources.synthetic import SyntheticPairs
from tests.data.conftest import noise_image

STILL = Augmentation(flips=False, rotations=False)
SHARES = ("rescale", "mixup", "channel_shuffle", "cutblur")
ALL = Augmentation(rescale=0.5, mixup=0.5, channel_shuffle=0.5, cutblur=0.5)


def still(**shares: float) -> Augmentation:
    return STILL.model_copy(update=shares)


def planes(count: int, channels: int = 3, height: int = 17, width: int = 23) -> list[Pixels]:
    images = [noise_image(number, height, width, channels) for number in range(count)]
    return [np.ascontiguousarray(image.transpose(2, 0, 1)) for image in images]


def from_files(images: list[Pixels]) -> FolderPairs:
    """Pairs whose degraded side is the inverse of the clean side."""
    return FolderPairs([str(n) for n in range(len(images))], [255 - image for image in images], images)


def noisy(images: list[Pixels], **settings: object) -> SyntheticPairs:
    config = SyntheticConfig(dir=Path("nowhere"), **settings)
    return SyntheticPairs([str(n) for n in range(len(images))], images, config)


def loader(
    pairs: PairSet, augmentation: Augmentation, batch: int = 6, patch: int = 8, seed: int = 0
) -> TrainLoader:
    return TrainLoader(pairs, batch=batch, patch=patch, augmentation=augmentation, seed=seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", SHARES)
def test_a_step_is_the_same_whenever_it_is_asked_for(share: str, channels: int) -> None:
    for pairs in (from_files(planes(5, channels)), noisy(planes(5, channels), photons=50, blur=1)):
        one, other = (loader(pairs, still(**{share: 0.5})) for _ in range(2))
        onwards = [one.batch(step) for step in range(6)]
        backwards = [other.batch(step) for step in reversed(range(6))]
        for first, again in zip(onwards, reversed(backwards), strict=True):
            assert torch.equal(first.degraded, again.degraded)
            assert torch.equal(first.clean, again.clean)
            assert first.clean.shape == (6, channels, 8, 8)
            assert first.clean.is_contiguous() and first.degraded.is_contiguous()
            assert 0 <= first.clean.min() <= first.clean.max() <= 1


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_zero_changes_no_bit(share: str) -> None:
    pairs = noisy(planes(5))
    plain, off = (
        loader(pairs, Augmentation()),
        loader(pairs, Augmentation(**{share: 0.0, "rescale_limit": 4})),
    )
    for step in range(5):
        assert torch.equal(plain.batch(step).degraded, off.batch(step).degraded)
        assert torch.equal(plain.batch(step).clean, off.batch(step).clean)


@pytest.mark.parametrize("share", SHARES[:3])
def test_both_sides_of_a_pair_from_files_are_varied_alike(share: str) -> None:
    source = loader(from_files(planes(5)), Augmentation(**{share: 1.0}))
    for step in range(5):
        pair = source.batch(step)
        # A resized side is rounded to codes of its own.
        torch.testing.assert_close(pair.degraded, 1 - pair.clean, atol=1.01 / 255, rtol=0)


def changed_share(augmentation: Augmentation, steps: int = 300) -> tuple[int, int]:
    """How many crops differ from those of an unvaried loader, and of how many."""
    pairs = noisy(planes(7), sigma=0)
    plain, varied = loader(pairs, STILL, batch=8), loader(pairs, augmentation, batch=8)
    changed = 0
    for step in range(steps):
        ours, theirs = varied.batch(step), plain.batch(step)
        same = (ours.degraded == theirs.degraded) & (ours.clean == theirs.clean)
        changed += int((~same.flatten(1).all(1)).sum())
    return changed, 8 * steps


@pytest.mark.parametrize("probability", [0.2, 0.7])
@pytest.mark.parametrize("share", ["mixup", "channel_shuffle"])
def test_so_many_crops_are_varied_as_the_share_says(share: str, probability: float) -> None:
    changed, total = changed_share(still(**{share: probability}))
    # One of six orders is the one that was.
    expected = probability * (5 / 6 if share == "channel_shuffle" else 1)
    assert abs(changed - expected * total) < 4 * (expected * (1 - expected) * total) ** 0.5


def test_so_many_crops_are_pasted_as_the_share_says() -> None:
    source = loader(from_files(planes(7)), still(cutblur=0.3), batch=8)
    pairs = [source.batch(step) for step in range(300)]
    touched = sum(int((pair.degraded == pair.clean).flatten(1).any(1).sum()) for pair in pairs)
    assert abs(touched - 0.3 * 2400) < 4 * (0.3 * 0.7 * 2400) ** 0.5


def test_so_many_crops_are_rescaled_as_the_share_says_and_alike_in_both_directions() -> None:
    source = loader(from_files(planes(7)), still(rescale=0.4, rescale_limit=2.0), batch=8, patch=64)
    sides = np.array([crop.side for step in range(300) for crop in source.plan(step)])
    # A step of one pixel in 64 comes to the patch itself in 1 of 90.
    expected = 0.4 * (1 - np.log(64.5 / 63.5) / np.log(4))
    assert abs((sides != 64).mean() - expected) < 4 * (expected * (1 - expected) / 2400) ** 0.5
    assert {sides.min(), sides.max()} == {32, 128}
    scaled = sides[sides != 64]
    assert abs((scaled > 64).mean() - 0.5) < 4 * 0.5 / len(scaled) ** 0.5


def mixing_weight(mixed: Tensor, one: Tensor, other: Tensor) -> float:
    """The weight of `one` with which the two make `mixed`, by least squares; fails if they do not."""
    direction = one - other
    weight = ((mixed - other) * direction).sum() / direction.square().sum()
    torch.testing.assert_close(mixed, weight * one + (1 - weight) * other, atol=1e-5, rtol=0)
    return float(weight)


def test_mixed_crops_are_weighted_means_of_neighbours_with_beta_weights() -> None:
    pairs = from_files(planes(6))  # a batch is an epoch: all images differ
    plain, varied = loader(pairs, STILL), loader(pairs, still(mixup=1.0))
    weights = []
    for step in range(200):
        before, after = plain.batch(step), varied.batch(step)
        for place in range(6):
            neighbour = (place + 1) % 6
            weight = mixing_weight(after.clean[place], before.clean[place], before.clean[neighbour])
            weights.append(weight)
    # A beta distribution with both parameters a has variance 1 / (4 (2 a + 1)).
    assert np.mean(weights) == pytest.approx(0.5, abs=0.03)
    assert np.var(weights) == pytest.approx(1 / (4 * (2 * 1.2 + 1)), rel=0.1)


def test_a_batch_of_one_has_nothing_to_mix_with() -> None:
    pairs = from_files(planes(3))
    plain, varied = loader(pairs, STILL, batch=1), loader(pairs, still(mixup=1.0), batch=1)
    assert torch.equal(plain.batch(0).clean, varied.batch(0).clean)


def noise_of(augmentation: Augmentation, pairs: PairSet) -> Tensor:
    pair = loader(pairs, augmentation, batch=8, patch=64).batch(0)
    return (pair.degraded - pair.clean) * 255


@pytest.mark.parametrize("share", SHARES[:3])
def test_noise_made_here_keeps_its_level_whatever_is_done_to_the_images(share: str) -> None:
    noise = noise_of(still(**{share: 1.0}), noisy(planes(8, height=130, width=130), sigma=25))
    assert noise.std().item() == pytest.approx(25, abs=0.3)
    deviations = noise.flatten(1).std(1)
    assert (deviations - 25).abs().max() < 0.8


def test_noise_in_files_is_averaged_by_mixing() -> None:
    rng = np.random.default_rng(0)
    clean = [np.full((3, 100, 100), level, np.uint8) for level in range(90, 170, 10)]
    files = [np.rint(image + rng.normal(0, 20, image.shape)).astype(np.uint8) for image in clean]
    pairs = FolderPairs([str(n) for n in range(8)], files, clean)
    assert noise_of(STILL, pairs).std() == pytest.approx(20, abs=0.3)
    deviations = noise_of(still(mixup=1.0), pairs).flatten(1).std(1)
    assert deviations.min() < 16
    assert deviations.min() > 20 * 0.5**0.5 - 0.5
    assert deviations.max() < 20.5


def test_channels_are_shuffled_in_all_orders_and_gray_stays() -> None:
    pairs = from_files(planes(5))
    plain, varied = loader(pairs, STILL), loader(pairs, still(channel_shuffle=1.0))
    seen = set()
    for step in range(40):
        before, after = plain.batch(step).clean, varied.batch(step).clean
        for one, other in zip(before, after, strict=True):
            seen.add(tuple(next(c for c in range(3) if torch.equal(plane, one[c])) for plane in other))
    assert len(seen) == 6
    gray = from_files(planes(5, channels=1))
    assert torch.equal(
        loader(gray, STILL).batch(0).clean, loader(gray, still(channel_shuffle=1.0)).batch(0).clean
    )


def spans(taken: NDArray[np.bool_]) -> tuple[int, int]:
    """Height and width of the rectangle that `taken` is; fails if it is none."""
    rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
    assert taken[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert taken.sum() == len(rows) * len(columns)
    return len(rows), len(columns)


def test_a_square_or_all_around_it_becomes_clean_and_the_clean_side_stays() -> None:
    pairs = from_files(planes(5))
    plain, varied = loader(pairs, STILL, patch=10), loader(pairs, still(cutblur=1.0), patch=10)
    squares, places = 0, set()
    for step in range(100):
        before, after = plain.batch(step), varied.batch(step)
        assert torch.equal(before.clean, after.clean)
        for place in range(6):
            taken = (after.degraded[place] == after.clean[place]).all(0).numpy()
            assert torch.equal(after.degraded[place][:, ~taken], before.degraded[place][:, ~taken])
            inside = bool(taken.sum() == 49)
            assert spans(taken if inside else ~taken) == (7, 7)
            squares += inside
            places.add(int(np.argmax(taken if inside else ~taken)))
    assert abs(squares - 300) < 4 * 150**0.5
    assert places == {10 * top + left for top in range(4) for left in range(4)}


@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_rescaled_crops_are_area_means_or_linear_interpolations(factor: float) -> None:
    class Fixed(Augmentation):
        def sides(self, patch: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
            return np.full(count, round(patch * factor))

    images = planes(4, height=40, width=50)
    source = loader(from_files(images), Fixed(flips=False, rotations=False))
    batch = source.batch(0)
    for place, crop in enumerate(source.plan(0)):
        square = torch.from_numpy(
            images[crop.image][:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side] / 255.0
        )[None]
        shrunk, grown = F.avg_pool2d(square, round(max(factor, 1))), F.interpolate(square, 8, mode="bilinear")
        expected = shrunk if factor > 1 else grown
        torch.testing.assert_close(batch.clean[place].double(), expected[0], atol=1.01 / 255, rtol=0)


def test_a_rescaled_crop_of_a_blurred_set_is_blurred_in_pixels_of_the_patch() -> None:
    """An edge is as soft as ever, however large the window was."""
    edge = np.zeros((1, 200, 200), np.uint8)
    edge[..., 100:] = 255
    source = loader(noisy([edge], sigma=0, blur=2), still(rescale=1.0), batch=40, patch=64)
    for degraded, clean in zip(*(side[:, 0] for side in vars(source.batch(0)).values()), strict=True):
        if not clean[0, 0] == 0 < clean[0, -1] or not 12 < int((clean[0] < 0.5).sum()) < 52:
            continue
        # The slope of a blurred step is that of a Gaussian's height, 1 / (sqrt(2 pi) sigma).
        assert degraded[0].diff().max() == pytest.approx(1 / ((2 * np.pi) ** 0.5 * 2), rel=0.12)


def test_windows_larger_than_the_image_go_on_as_its_reflection() -> None:
    source = loader(from_files(planes(3, height=9, width=5)), still(rescale=1.0, rescale_limit=4.0))
    pair = source.batch(0)
    assert {crop.side for crop in source.plan(0)} - {8}
    torch.testing.assert_close(pair.degraded, 1 - pair.clean, atol=1.01 / 255, rtol=0)


def test_everything_together_keeps_its_promises() -> None:
    source = loader(noisy(planes(5), photons=30, blur=1, jpeg_quality=60, clip=True), ALL)
    for step in range(20):
        pair = source.batch(step)
        assert pair.degraded.isfinite().all()
        assert 0 <= pair.clean.min() <= pair.clean.max() <= 1


@pytest.mark.parametrize(
    "wrong", [{"mixup": -0.1}, {"cutblur": 1.1}, {"rescale_limit": 1.0}, {"rescale_limit": 5}, {"blend": 0.5}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(wrong)
