"""Positions and turns of crops, against numpy's own padding and rotation."""

import itertools

import numpy as np
import pytest

from data.cropping import Augmentation, cut_crop, dihedral, offset_bounds
from data.cropping.crops import reflected


@pytest.mark.parametrize(("size", "patch", "bounds"), [(23, 16, (0, 7)), (16, 16, (0, 0)), (5, 16, (-11, 0))])
def test_offsets_reach_from_one_border_to_the_other(size: int, patch: int, bounds: tuple[int, int]) -> None:
    first, last = offset_bounds(np.array([[size, size]]), np.array([[patch]]))
    assert (first[0, 0], last[0, 1]) == bounds


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_reflected_indices_are_those_of_numpy_pad(size: int) -> None:
    padded = np.pad(np.arange(size), 25, mode="reflect")
    np.testing.assert_array_equal(reflected(-25, size + 50, size), padded)


def test_crop_inside_is_a_view_and_crop_across_the_border_is_the_padded_image() -> None:
    image = np.arange(3 * 17 * 23, dtype=np.uint16).reshape(3, 17, 23)
    assert np.shares_memory(cut_crop(image, 3, 15, 8), image)
    padded = np.pad(image, ((0, 0), (20, 20), (20, 20)), mode="reflect")
    for top, left in itertools.product((-20, -3, 0, 9, 12), (-20, -1, 15, 16)):
        expected = padded[:, top + 20 : top + 28, left + 20 : left + 28]
        np.testing.assert_array_equal(cut_crop(image, top, left, 8), expected)


@pytest.mark.parametrize("element", range(8))
def test_dihedral_is_numpy_rot90_after_flip(element: int) -> None:
    image = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    mirrored = np.flip(image, axis=-1) if element >= 4 else image
    np.testing.assert_array_equal(dihedral(image, element), np.rot90(mirrored, element % 4, axes=(-2, -1)))


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("rotations", [False, True])
def test_augmentation_is_a_group_of_distinct_symmetries(flips: bool, rotations: bool) -> None:
    elements = Augmentation(flips=flips, rotations=rotations).elements()
    image = np.arange(9).reshape(3, 3)
    results = {dihedral(image, element).tobytes() for element in elements}
    products = {dihedral(dihedral(image, a), b).tobytes() for a in elements for b in elements}
    assert len(results) == len(elements) == {0: 1, 1: 4, 2: 8}[flips + rotations]
    assert products == results
    assert elements[0] == 0
