"""The split by image: drawn once, written down, kept when images come and go."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import DataError, Pair
from data.sources import PairsConfig, PairSet, shared_images
from data.sources.split import held_out
from tests.data.conftest import MakePairs, noise_image, save

NAMES = [f"{number:02}" for number in range(20)]


def test_split_is_written_and_reused_whatever_the_seed(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    val = held_out(NAMES, 0.2, 0, record, tmp_path)
    assert len(val) == 4
    assert sum(side == "val" for side in json.loads(record.read_text())["sides"].values()) == 4
    assert held_out(NAMES, 0.2, 1, record, tmp_path) == val


def test_seed_decides_the_first_split(tmp_path: Path) -> None:
    splits = [
        held_out(NAMES, 0.2, seed, tmp_path / f"{n}.json", tmp_path) for n, seed in enumerate((0, 0, 1))
    ]
    assert splits[0] == splits[1] != splits[2]


def test_known_images_keep_their_side_when_files_are_added(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    val = held_out(NAMES, 0.2, 0, record, tmp_path)
    more = [*NAMES, *(f"new{number}" for number in range(20))]
    grown = held_out(more, 0.2, 0, record, tmp_path)
    assert grown & set(NAMES) == val
    assert len(grown) == 8


def test_removed_images_are_remembered_when_they_return(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    val = held_out(NAMES, 0.2, 0, record, tmp_path)
    gone = sorted(val)[0]
    assert held_out([name for name in NAMES if name != gone], 0.2, 0, record, tmp_path) == val - {gone}
    assert held_out(NAMES, 0.2, 0, record, tmp_path) == val


def test_split_starts_anew_when_one_side_ran_dry(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    val = held_out(NAMES, 0.2, 0, record, tmp_path)
    rest = [name for name in NAMES if name not in val]
    assert len(held_out(rest, 0.2, 0, record, tmp_path)) == 3


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (3, 0.99, 2), (10, 0.25, 2)]
)
def test_both_sides_get_at_least_one_image(
    tmp_path: Path, count: int, fraction: float, expected: int
) -> None:
    assert len(held_out(NAMES[:count], fraction, 0, tmp_path / "split.json", tmp_path)) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sides": {"a": "test"}}'])
def test_damaged_record_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DataError, match=r"split.json: damaged split record .*delete it"):
        held_out(NAMES, 0.2, 0, tmp_path / "split.json", tmp_path)


def test_opened_folder_names_its_record_and_shares_no_image(make_pairs: MakePairs, tmp_path: Path) -> None:
    split = PairsConfig(dir=make_pairs(*NAMES[:10])).open(seed=3, cache=tmp_path / "runs")
    train, val = ({part.name(i) for i in range(len(part))} for part in (split.train, split.val))
    assert (len(train), len(val), train & val) == (8, 2, set())
    (record,) = (tmp_path / "runs/data").glob("split-set-*.json")
    assert str(record) in split.note


def test_images_that_are_in_a_split_are_found_by_their_pixels(make_pairs: MakePairs, tmp_path: Path) -> None:
    make_pairs("a", "b", folder="set/train")  # clean images of seed 0 and 1, scans their inverse
    make_pairs("c", folder="set/val")  # seed 0 again
    split = PairsConfig(dir=tmp_path / "set").open(seed=0, cache=tmp_path)
    for name, scan, clean in (
        ("same clean", noise_image(7), noise_image(1)),
        ("scan of another as clean", noise_image(8), 255 - noise_image(1)),
        ("same at 16 bit", noise_image(9), noise_image(1).astype(np.uint16) * 257),
        ("one value off", noise_image(7), noise_image(1) ^ np.eye(17, 23, dtype=np.uint8)[..., None]),
        ("other shape", noise_image(7).reshape(23, 17, 3), noise_image(1).reshape(23, 17, 3)),
    ):
        save(tmp_path / "test/scan" / f"{name}.tif", scan)
        save(tmp_path / "test/clean" / f"{name}.png", clean)
    pairs = PairsConfig(dir=tmp_path / "test").open_all(cache=tmp_path)
    assert shared_images(pairs, split) == {
        "same clean": "train b",
        "scan of another as clean": "train b",
        "same at 16 bit": "train b",
    }


def test_an_image_of_the_split_itself_is_found(make_pairs: MakePairs, tmp_path: Path) -> None:
    split = PairsConfig(dir=make_pairs("a", "b")).open(seed=0, cache=tmp_path)
    assert set(shared_images(split.val, split)) == {split.val.name(0)}


class Degraded(PairSet):
    """Square images, `errors[n]` away from clean; counts how often it is asked for one."""

    def __init__(self, sides: Sequence[int], errors: Sequence[float]) -> None:
        self.sides, self.errors, self.decoded = sides, errors, 0

    def __len__(self) -> int:
        return len(self.errors)

    def name(self, index: int) -> str:
        return str(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.sides[index], self.sides[index]

    def whole(self, index: int) -> Pair:
        self.decoded += 1
        clean = torch.zeros(1, *self.size(index))
        return Pair(degraded=clean + self.errors[index], clean=clean)

    def crops(self, *_: object) -> Pair:
        raise NotImplementedError


def every_count_tried(pairs: PairSet, megapixels: float) -> list[int]:
    """The definition of `representative`, in square time."""
    wholes = [pairs.whole(index) for index in range(len(pairs))]
    errors = [float((pair.degraded - pair.clean).square().mean()) for pair in wholes]
    order = sorted(range(len(pairs)), key=lambda index: (errors[index], index))
    for count in range(len(order), 1, -1):
        picked = [order[(2 * n + 1) * len(order) // (2 * count)] for n in range(count)]
        if sum(math.prod(pairs.size(index)) for index in picked) <= megapixels * 1e6:
            return sorted(picked)
    return [order[len(order) // 2]]


def test_representative_images_span_the_range_of_degradation() -> None:
    val = Degraded([10] * 6, (0.5, 0.1, 0.9, 0.3, 0.7, 0.2))
    assert val.representative(600e-6) == [0, 1, 2, 3, 4, 5]
    assert val.representative(399e-6) == [0, 2, 5]
    assert val.representative(299e-6) == [4, 5]


def test_one_image_at_least_is_representative_and_otherwise_pixels_are_never_exceeded() -> None:
    val = Degraded([10] * 9, [n / 10 for n in range(9)])
    assert val.representative(1e-6) == [4]
    for limit in range(100, 1000, 50):
        picked = val.representative((limit + 1) * 1e-6)
        assert len(picked) == max(1, limit // 100)
        assert len(set(picked)) == len(picked)


@pytest.mark.parametrize("seed", range(6))
def test_representative_images_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    sides = rng.choice([3, 4, 9, 25], count) if seed % 2 else np.full(count, 7)
    errors = rng.choice(np.linspace(0, 1, 9), count)  # some alike
    val = Degraded(sides.tolist(), errors.tolist())
    total = float((sides**2).sum())
    for pixels in {0.0, total, total - 1, 2 * total, *(sides**2).tolist(), *rng.uniform(0, total, 30)}:
        assert val.representative(pixels / 1e6) == every_count_tried(val, pixels / 1e6)


def test_images_are_decoded_once_however_often_some_are_asked_for() -> None:
    val = Degraded([10] * 9, [n / 10 for n in range(9)])
    for megapixels in (1e-6, 4e-4, 1.0):
        val.representative(megapixels)
    assert val.decoded == 9
