"""Batches: what is drawn, how often, and that a step alone decides it."""

from collections import Counter

import numpy as np
import pytest
import torch

from data import TrainLoader
from data.cropping import Augmentation
from data.files import Pixels, to_tensor
from data.sources.pairs import FolderPairs
from tests.data.conftest import noise_image

STILL = Augmentation(flips=False, rotations=False)


def pairs_of(*images: Pixels) -> FolderPairs:
    """Pairs whose degraded side is the inverse of the clean side."""
    planes = [np.ascontiguousarray(image.transpose(2, 0, 1)) for image in images]
    names = [str(number) for number in range(len(images))]
    return FolderPairs(names, [np.iinfo(image.dtype).max - image for image in planes], planes)


def loader(
    pairs: FolderPairs, batch: int = 4, patch: int = 8, augmentation: Augmentation = STILL, seed: int = 0
) -> TrainLoader:
    return TrainLoader(pairs, batch=batch, patch=patch, augmentation=augmentation, seed=seed)


def test_every_offset_is_drawn_equally_often_and_the_last_one_too() -> None:
    drawn = [
        crop for step in range(250) for crop in loader(pairs_of(noise_image(0, 10, 12)), batch=8).plan(step)
    ]
    tops, lefts = Counter(crop.top for crop in drawn), Counter(crop.left for crop in drawn)
    assert set(tops) == {0, 1, 2}
    assert set(lefts) == {0, 1, 2, 3, 4}
    for counts in (tops, lefts):
        expected = len(drawn) / len(counts)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_the_eight_symmetries_are_drawn_equally_often() -> None:
    source = loader(pairs_of(noise_image(0)), batch=8, augmentation=Augmentation())
    counts = Counter(crop.element for step in range(250) for crop in source.plan(step))
    assert set(counts) == set(range(8))
    assert all(abs(count - 250) < 5 * 250**0.5 for count in counts.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_batch_is_the_planned_crops_turned_by_numpy_on_both_sides(dtype: type) -> None:
    images = [
        np.random.default_rng(n).integers(0, np.iinfo(dtype).max, (17, 23 + n, 3)).astype(dtype)
        for n in range(3)
    ]
    source = loader(pairs_of(*images), augmentation=Augmentation(), batch=16)
    batch = source.batch(5)
    for place, crop in enumerate(source.plan(5)):
        expected = images[crop.image][crop.top : crop.top + 8, crop.left : crop.left + 8]
        expected = np.rot90(np.fliplr(expected) if crop.element >= 4 else expected, crop.element % 4)
        clean = to_tensor(np.ascontiguousarray(expected))
        assert torch.equal(batch.clean[place], clean)
        torch.testing.assert_close(batch.degraded[place], 1 - clean, atol=1e-6, rtol=0)


def test_batch_is_contiguous_float32_in_the_unit_range() -> None:
    batch = loader(pairs_of(noise_image(0), noise_image(1)), batch=5).batch(0)
    for side in (batch.degraded, batch.clean):
        assert side.shape == (5, 3, 8, 8)
        assert side.dtype == torch.float32
        assert side.is_contiguous()
        assert 0 <= side.min() <= side.max() <= 1


def test_batch_depends_on_seed_and_step_alone() -> None:
    pairs = pairs_of(noise_image(0), noise_image(1), noise_image(2))
    onwards = [loader(pairs, augmentation=Augmentation()).batch(step).clean for step in range(6)]
    one, other = (
        loader(pairs, augmentation=Augmentation()),
        loader(pairs, augmentation=Augmentation(), seed=1),
    )
    backwards = [one.batch(step).clean for step in reversed(range(6))]
    assert all(map(torch.equal, onwards, reversed(backwards)))
    assert not torch.equal(onwards[0], onwards[1])
    assert not torch.equal(onwards[0], other.batch(0).clean)


@pytest.mark.parametrize("batch", [1, 3, 5, 17])
def test_each_epoch_visits_every_image_once_in_a_new_order(batch: int) -> None:
    pairs = pairs_of(*(noise_image(n) for n in range(7)))
    source = loader(pairs, batch=batch)
    visited = [crop.image for step in range(70) for crop in source.plan(step)]
    epochs = [tuple(visited[start : start + 7]) for start in range(0, 70, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) > 5


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 30), (8, 8), (8, 7)])
def test_images_smaller_than_the_patch_are_extended_by_reflection(size: tuple[int, int]) -> None:
    image = noise_image(0, *size)
    source = loader(pairs_of(image))
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    for step in range(5):
        batch = source.batch(step)
        for place, crop in enumerate(source.plan(step)):
            expected = padded[crop.top + 8 : crop.top + 16, crop.left + 8 : crop.left + 16]
            assert torch.equal(batch.clean[place], to_tensor(expected))
