"""The split by image: drawn once, written down, kept when images come and go."""

import json
from pathlib import Path

import pytest

from data.images import DataError
from data.pairs import PairsConfig
from data.split import held_out
from tests.data.conftest import MakePairs

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
