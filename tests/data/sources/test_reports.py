"""Folders that people reported to other programs' trackers: see tests/reports.md."""

from pathlib import Path

import pytest

from data.files import DataError
from data.sources import PairsConfig, find_pairs
from data.sources.split import held_out
from tests.data.conftest import noise_image, save
from tests.data.sources.test_pairing import opened, train_names, val_names, write


def same_names(folder: Path, scan: str, clean: str, count: int) -> Path:
    return write(folder, *((f"{scan}/{n}.png", f"{clean}/{n}.png") for n in range(count)))


def test_missing_partner_in_val_is_named_as_one_of_val(tmp_path: Path) -> None:
    folder = same_names(tmp_path / "set", "train/lq", "train/gt", 5)
    same_names(folder, "val/lq", "val/gt", 3)
    (folder / "val/gt/1.png").unlink()
    with pytest.raises(DataError) as caught:
        opened(folder)
    assert f"{folder}/val/lq has 3 images, {folder}/val/gt has 2" in str(caught.value)
    assert f"no partner for 1 of {folder}/val/lq: 1" in str(caught.value)


def test_pairs_are_never_made_by_position(tmp_path: Path) -> None:
    folder = same_names(tmp_path / "set", "lq", "gt", 6)
    (folder / "gt/2.png").unlink()
    (folder / "lq/5.png").unlink()
    with pytest.raises(DataError, match=r"no partner for 1 of \S+lq: 2; no partner for 1 of \S+gt: 5"):
        opened(folder)


def test_many_degradations_of_one_image_are_pairs_and_one_group(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(5):
        save(folder / f"gt/im_{number}.png", noise_image(number))
        for rain in range(3):
            save(folder / f"lq/im_{number}_s80_a{rain:02}.png", noise_image(100 + 10 * number + rain))
    split = opened(folder, pair_by="{}_s*={}")
    assert (len(split.train), len(split.val)) == (12, 3)
    assert len({name[:4] for name in val_names(split)}) == 1


def test_folders_whose_names_hold_a_known_word_are_the_sides(tmp_path: Path) -> None:
    folder = same_names(tmp_path / "set", "INPUT_FOLDER", "TARGET_FOLDER", 4)
    found = find_pairs(folder, None, None, None)["all"]
    assert found.pairs["3"] == (folder / "INPUT_FOLDER/3.png", folder / "TARGET_FOLDER/3.png")
    named = find_pairs(folder, "INPUT_FOLDER", "TARGET_FOLDER", None)["all"]
    assert named.pairs == found.pairs


def test_a_third_folder_is_no_side(tmp_path: Path) -> None:
    folder = write(tmp_path, *((f"lq/{n}_x4.png", f"gt/{n}.png") for n in range(4)))
    for number in range(4):
        save(folder / f"ref/{number}.png", noise_image(40 + number))
    found = find_pairs(folder, None, None, None)["all"]
    assert [(a.parent.name, b.parent.name) for a, b in found.pairs.values()] == [("lq", "gt")] * 4


def test_training_images_used_for_validation_are_told_first(tmp_path: Path) -> None:
    for part in ("train", "val"):
        same_names(tmp_path / "set" / part, "scan", "clean", 4)
    assert "of 4 validation images 4 are in training as well" in opened(tmp_path / "set").note


def test_split_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    names = [f"{n:02}" for n in range(20)]
    orders = names, names[::-1], names[7:] + names[:7]
    splits = [
        held_out(order, 0.2, 42, tmp_path / f"{place}.json", tmp_path) for place, order in enumerate(orders)
    ]
    assert splits[0] == splits[1] == splits[2]


def test_samples_beside_train_and_valid_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for place, count in (("train", 4), ("valid", 2), ("samples/train", 1), ("samples/valid", 1)):
        same_names(folder / place, "scan", "clean", count)
    split = PairsConfig(dir=folder).open(seed=0, cache=tmp_path)
    assert (len(train_names(split)), len(val_names(split))) == (4, 2)
