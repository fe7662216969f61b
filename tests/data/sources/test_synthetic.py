"""Synthetic degradations: their statistics, and who gets the same noise twice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data import TrainLoader
from data.cropping import Augmentation
from data.files import DataError, to_tensor
from data.sources import Split, SyntheticConfig
from tests.data.conftest import noise_image, save


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of even images: two mid gray, two near black, two white."""
    for number, level in enumerate((128, 128, 10, 10, 255, 255)):
        save(tmp_path / "flat" / f"{number}-{level}.png", np.full((150, 160, 3), level, np.uint8))
    return tmp_path / "flat"


def opened(folder: Path, **settings: object) -> Split:
    return SyntheticConfig(dir=folder, **settings).open(seed=0, cache=folder.parent / "runs")


def batch(split: Split, step: int = 0, seed: int = 0, patch: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    loader = TrainLoader(split.train, batch=5, patch=patch, augmentation=Augmentation(), seed=seed)
    pair = loader.batch(step)
    return pair.degraded, pair.clean


def test_gaussian_noise_has_the_stated_deviation_and_is_never_clipped(flat: Path) -> None:
    degraded, clean = batch(opened(flat, sigma=25))
    noise = degraded - clean
    assert abs(noise.std().item() * 255 - 25) < 0.3
    assert abs(noise.mean().item() * 255) < 0.5
    assert degraded.min() < 0 and degraded.max() > 1
    assert degraded.dtype == torch.float32


def test_each_crop_draws_its_own_deviation_from_the_range(flat: Path) -> None:
    degraded, clean = batch(opened(flat, sigma=[5, 50]))
    deviations = (degraded - clean).flatten(1).std(1) * 255
    assert deviations.min() > 4.5
    assert deviations.max() < 51
    assert deviations.max() - deviations.min() > 5


def test_photon_noise_has_the_variance_of_the_light(flat: Path) -> None:
    degraded, clean = batch(opened(flat, sigma=0, photons=50))
    for image, original in zip(degraded, clean, strict=True):
        level = original.mean().item()
        assert abs(image.mean().item() - level) < 0.01
        assert image.var().item() == pytest.approx(level / 50, rel=0.06)


def test_poisson_and_gaussian_variances_add(flat: Path) -> None:
    degraded, clean = batch(opened(flat, sigma=20, photons=50))
    for image, original in zip(degraded, clean, strict=True):
        expected = original.mean().item() / 50 + (20 / 255) ** 2
        assert image.var().item() == pytest.approx(expected, rel=0.06)


def test_clipped_noise_is_what_an_8_bit_file_can_hold(flat: Path) -> None:
    degraded, _ = batch(opened(flat, sigma=25, clip=True))
    assert degraded.min() == 0 and degraded.max() == 1
    torch.testing.assert_close(degraded * 255, (degraded * 255).round(), atol=1e-4, rtol=0)


def test_jpeg_of_low_quality_shows_its_blocks(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "set" / f"{name}.png", noise_image(1, 64, 64, channels=1))
    rough, fine = (opened(tmp_path / "set", sigma=0, jpeg_quality=q).val.whole(0) for q in (5, 100))
    error = [(pair.degraded - pair.clean).abs().mean().item() for pair in (rough, fine)]
    assert error[0] > 0.1 > 0.03 > error[1]
    assert rough.degraded.shape == (1, 64, 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_of_a_crop_is_the_crop_of_the_blurred_image(tmp_path: Path, channels: int) -> None:
    for name in "abc":
        save(tmp_path / "set" / f"{name}.png", noise_image(1, 30, 40, channels))
    split = opened(tmp_path / "set", sigma=0, blur=1.5, val_fraction=0.3)
    whole = split.val.whole(0).degraded
    assert whole.std() < 0.5 * split.val.whole(0).clean.std()
    loader = TrainLoader(
        split.train, batch=8, patch=16, augmentation=Augmentation(flips=False, rotations=False), seed=0
    )
    pair = loader.batch(0)
    for place, crop in enumerate(loader.plan(0)):
        expected = whole[:, crop.top : crop.top + 16, crop.left : crop.left + 16]
        torch.testing.assert_close(pair.degraded[place], expected, atol=1e-5, rtol=0)
    assert pair.degraded.is_contiguous() and pair.clean.is_contiguous()


def test_training_noise_is_fresh_at_every_step_and_item_and_fixed_by_the_seed(flat: Path) -> None:
    split = opened(flat)
    first, again, later, other = batch(split), batch(split), batch(split, step=1), batch(split, seed=1)
    noise = [degraded - clean for degraded, clean in (first, again, later, other)]
    assert torch.equal(first[0], again[0])
    assert not torch.allclose(noise[0], noise[2], atol=1e-2)
    assert not torch.allclose(noise[0], noise[3], atol=1e-2)
    assert not torch.allclose(noise[0][0], noise[0][1], atol=1e-2)


def test_validation_noise_hangs_on_the_name_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        save(tmp_path / "one/val" / f"{name}.png", noise_image(0))
        save(tmp_path / "one/train" / f"{name}.png", noise_image(0))
    for name in ("b", "c"):
        save(tmp_path / "two/val" / f"{name}.png", noise_image(0))
        save(tmp_path / "two/train" / f"{name}.png", noise_image(0))
    many, few = (opened(tmp_path / folder).val for folder in ("one", "two"))
    assert torch.equal(many.whole(1).degraded, few.whole(0).degraded)
    assert torch.equal(many.whole(1).degraded, many.whole(1).degraded)
    assert not torch.equal(many.whole(0).degraded, many.whole(1).degraded)


@pytest.mark.parametrize("inside", ["", "clean", "gt"])
def test_images_lie_in_the_folder_or_in_its_clean_folder(tmp_path: Path, inside: str) -> None:
    for part in ("train", "val"):
        save(tmp_path / "set" / part / inside / "a.png", noise_image(3))
    split = opened(tmp_path / "set")
    assert (len(split.train), len(split.val)) == (1, 1)
    assert torch.equal(split.val.whole(0).clean, to_tensor(noise_image(3)))
    assert "split as found" in split.note and "noise 25/255" in split.note


def test_fingerprint_tells_degradations_apart(flat: Path) -> None:
    prints = {opened(flat, **settings).fingerprint for settings in ({}, {"sigma": 15}, {"clip": True})}
    assert len(prints) == 3


def test_range_and_number_survive_json(tmp_path: Path) -> None:
    config = SyntheticConfig(dir=tmp_path, sigma=[5, 50], blur=1, jpeg_quality=(30, 90))
    assert config.sigma == (5, 50)
    assert config.blur == (1, 1)
    assert SyntheticConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": [50, 5]},
        {"sigma": -1},
        {"sigma": 256},
        {"jpeg_quality": 0},
        {"blur": [0, 21]},
        {"photons": 0},
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SyntheticConfig.model_validate({"dir": str(tmp_path), **wrong})


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such folder"):
        opened(tmp_path / "gone")
    (tmp_path / "set/clean").mkdir(parents=True)
    with pytest.raises(DataError, match="clean: no images"):
        opened(tmp_path / "set")
