"""Folders as data sets come: names that tell the side, sub-folders, both sides in one folder."""

import shutil
from pathlib import Path

import pytest

from data.files import DataError
from data.sources import PairsConfig, Split, find_pairs
from data.sources.pair_pattern import parse_pattern
from data.sources.pairing import folder_groups
from tests.data.conftest import noise_image, save


def write(folder: Path, *pairs: tuple[str, str]) -> Path:
    """Degraded and clean files by path below `folder`; the degraded one is the inverse of the clean one."""
    for number, (scan, clean) in enumerate(pairs):
        image = noise_image(number)
        save(folder / clean, image)
        save(folder / scan, 255 - image)
    return folder


def partners(folder: Path, **settings: str | None) -> dict[str, tuple[str, str]]:
    """By name: the two files, below `folder`."""
    given = {"scan_dir": None, "clean_dir": None, "pair_by": None, **settings}
    found: dict[str, tuple[str, str]] = {}
    for pairing in find_pairs(folder, **given).values():
        pairing.refuse_faults()
        for name, (scan, clean) in pairing.pairs.items():
            found[name] = scan.relative_to(folder).as_posix(), clean.relative_to(folder).as_posix()
    return found


def opened(folder: Path, **settings: object) -> Split:
    return PairsConfig(dir=folder, **settings).open(seed=0, cache=folder.parent / "runs")


def val_names(split: Split) -> set[str]:
    return {split.val.name(index) for index in range(len(split.val))}


def train_names(split: Split) -> set[str]:
    return {split.train.name(index) for index in range(len(split.train))}


LAYOUTS = {
    "suffix": ("noisy/{0}_noisy.png", "gt/{0}_gt.png", "{0}"),
    "token of SIDD": ("noisy/{0}_NOISY_SRGB_010.png", "gt/{0}_GT_SRGB_010.png", "{0}_SRGB_010"),
    "folder per scene of SIDD": ("{0}_001_S6/NOISY_SRGB_010.PNG", "{0}_001_S6/GT_SRGB_010.PNG", "{0}_001_S6/SRGB_010"),
    "numbered twice": ("Data/{0}/{0}_NOISY_10.PNG", "Data/{0}/{0}_GT_10.PNG", "Data/{0}/{0}_10"),
    "PolyU, one flat folder": ("Canon_5_{0}_Real.JPG", "Canon_5_{0}_mean.JPG", "Canon_5_{0}"),
    "clean names without a marker": ("{0}_noisy.png", "{0}.png", "{0}"),
    "prefix": ("input/noisy_{0}.png", "target/clean_{0}.png", "{0}"),
    "number glued to a word": ("lq/{0}x4.png", "hq/{0}.png", "{0}"),
    "words that nobody knows": ("lq/kg_t_{0}.png", "hq/kg_i_{0}.png", "kg_{0}"),
    "sides below scenes": ("roll{0}/blur/a.png", "roll{0}/sharp/a.png", "roll{0}/a"),
    "sub-folders": ("scan/book{0}/a.png", "clean/book{0}/a.tif", "book{0}/a"),
    "sub-folders and suffix": ("scan/b{0}/a_scan.png", "clean/b{0}/a_clean.png", "b{0}/a"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_partners_are_found_as_data_sets_come(tmp_path: Path, layout: str) -> None:
    scan, clean, name = LAYOUTS[layout]
    numbers = ["0001", "0002", "0013", "0104"]
    write(tmp_path, *((scan.format(number), clean.format(number)) for number in numbers))
    assert partners(tmp_path) == {
        name.format(number): (scan.format(number), clean.format(number)) for number in numbers
    }


def test_found_pattern_is_said_and_written_into_the_split_and_finds_the_same_pairs(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", *((f"noisy/{n:02}_noisy.png", f"gt/{n:02}_gt.png") for n in range(10)))
    split = opened(folder)
    assert split.remarks == ("partners found by their names: {}_noisy={}_gt",)
    (record,) = (tmp_path / "runs/data").glob("split-*.json")
    assert "{}_noisy={}_gt" in record.read_text()
    assert opened(folder, pair_by="{}_noisy={}_gt").fingerprint == split.fingerprint


def test_equal_names_are_never_taken_apart(tmp_path: Path) -> None:
    folder = write(tmp_path, *((f"scan/{n}_noisy_gt.png", f"clean/{n}_noisy_gt.png") for n in range(3)))
    assert set(partners(folder)) == {"0_noisy_gt", "1_noisy_gt", "2_noisy_gt"}
    assert find_pairs(folder, None, None, None)["all"].remarks == []


def test_names_that_differ_in_case_are_partners_where_that_is_unique(tmp_path: Path) -> None:
    folder = write(tmp_path, ("scan/IMG_0.PNG", "clean/img_0.png"), ("scan/IMG_1.PNG", "clean/IMG_1.png"))
    assert set(partners(folder)) == {"IMG_0", "IMG_1"}
    assert find_pairs(folder, None, None, None)["all"].remarks == [
        "1 partners have names that differ in case only"
    ]
    save(folder / "clean/Img_0.png", noise_image(5))
    with pytest.raises(DataError, match="differ in case only"):
        partners(folder)


# What is not clear is refused with both candidates.


def test_two_clean_kinds_in_one_folder_are_refused_with_both(tmp_path: Path) -> None:
    folder = write(tmp_path, *((f"{n}_real.png", f"{n}_mean.png") for n in range(4)))
    for number in range(4):
        save(folder / f"{number}_gt.png", noise_image(20 + number))
    with pytest.raises(DataError, match=r"could go with \d_(gt|mean) .* or with \d_(gt|mean) .*--pair-by"):
        partners(folder)
    assert partners(folder, pair_by="{}_real={}_mean")["2"] == ("2_real.png", "2_mean.png")


def test_two_degraded_images_of_one_clean_need_a_pattern_and_are_a_group_then(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", *((f"noisy/{n}_noisy_a.png", f"gt/{n}_gt.png") for n in range(5)))
    for number in range(5):
        save(folder / f"noisy/{number}_noisy_b.png", noise_image(30 + number))
    with pytest.raises(DataError, match=r"0_gt.png could go with 0_noisy_a.png or 0_noisy_b.png.*--pair-by"):
        partners(folder)
    split = opened(folder, pair_by="{}_noisy_*={}_gt")
    assert (len(split.train), len(split.val)) == (8, 2)
    assert len({name[0] for name in val_names(split)}) == 1


def test_lonely_file_is_named_by_the_pattern_of_the_others(tmp_path: Path) -> None:
    folder = write(tmp_path, *((f"noisy/{n}_noisy.png", f"gt/{n}_gt.png") for n in range(6)))
    (folder / "gt/3_gt.png").unlink()
    with pytest.raises(DataError) as caught:
        partners(folder)
    assert "{}_noisy={}_gt" in str(caught.value)
    assert str(caught.value).endswith("no partner for 1 of " + str(folder / "noisy") + ": 3_noisy")


@pytest.mark.parametrize("pattern", ["noisy", "{}_a={}_b={}_c", "{}_a=b", ""])
def test_pattern_that_is_none_is_refused_with_what_is_allowed(pattern: str) -> None:
    with pytest.raises(ValueError, match="must be DEGRADED=CLEAN"):
        parse_pattern(pattern)


def test_pattern_without_sides_cannot_divide_one_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, ("0_a.png", "0_b.png"), ("1_a.png", "1_b.png"))
    with pytest.raises(DataError, match=r"4 images lie in .*--pair-by"):
        partners(folder)
    with pytest.raises(DataError, match="no sides to tell apart"):
        partners(folder, pair_by="{}")
    with pytest.raises(DataError, match="fits 0 degraded and 2 clean of 4 images"):
        partners(folder, pair_by="{}_x={}_b")
    assert set(partners(folder, pair_by="{}_a={}_b")) == {"0", "1"}


# Sub-folders.


def test_a_sub_folder_stays_on_one_side_of_the_split(tmp_path: Path) -> None:
    names = [f"book{n // 3}/{n % 3}" for n in range(15)]
    split = opened(write(tmp_path / "set", *((f"scan/{name}.png", f"clean/{name}.png") for name in names)))
    assert len(split.val) == 3
    assert len({name.split("/")[0] for name in val_names(split)}) == 1
    assert "split by group" in split.note


def test_groups_are_the_first_folders_that_differ() -> None:
    assert folder_groups(["a/x/1", "a/x/2", "a/y/z/3"]) == {"a/x/1": "a/x", "a/x/2": "a/x", "a/y/z/3": "a/y"}
    assert folder_groups(["1", "b/2"]) == {"b/2": "b"}
    assert folder_groups(["only/1", "only/2"]) == folder_groups([]) == {}


def test_pairs_beside_sub_folders_stay_the_set_they_were_and_the_rest_is_told(tmp_path: Path) -> None:
    top = [(f"scan/{n}.png", f"clean/{n}.png") for n in range(6)]
    before = opened(write(tmp_path / "set", *top))
    folder = write(tmp_path / "set", *top, *((f"scan/b/{n}.png", f"clean/b/{n}.png") for n in range(4)))
    save(folder / "scan/backup/0.png", noise_image(50))  # no partner: never part of the set
    after = opened(folder)
    assert after.fingerprint == before.fingerprint
    assert "4 more images" in after.remarks[0] and "b/0.png" in after.remarks[0]
    (folder / "scan/backup/0.png").unlink()
    everything = opened(folder, pair_by="{}")
    assert len(everything.train) + len(everything.val) == 10


def test_what_systems_leave_behind_is_no_image(tmp_path: Path) -> None:
    folder = write(tmp_path, *((f"scan/a/{n}.png", f"clean/a/{n}.png") for n in range(3)))
    for junk in (
        "scan/a/@eaDir/0.png",
        "scan/__MACOSX/a/0.png",
        "clean/a/.thumbnails/9.png",
        "scan/a/._0.png",
    ):
        save(folder / junk, noise_image(9))
    for junk in ("scan/.DS_Store", "scan/a/Thumbs.db", "clean/desktop.ini"):
        (folder / junk).write_bytes(b"\0\0")
    found = find_pairs(folder, None, None, None)["all"]
    assert list(found.pairs) == ["a/0", "a/1", "a/2"]
    assert found.sides[0].others == found.sides[1].others == []


def test_a_linked_folder_is_read_and_a_circle_ends(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", ("scan/a/0.png", "clean/a/0.png"))
    write(tmp_path / "far", ("scan/0.png", "clean/0.png"))
    for side in ("scan", "clean"):
        (folder / side / "b").symlink_to(tmp_path / "far" / side, target_is_directory=True)
        (folder / side / "a" / "round").symlink_to(folder / side, target_is_directory=True)
    assert list(partners(folder)) == ["a/0", "b/0"]


def test_train_and_val_below_the_sides_are_the_split(tmp_path: Path) -> None:
    parts = ["train"] * 4 + ["val"] * 2 + ["test"]
    pairs = [(f"input/{part}/{n}.png", f"target/{part}/{n}.png") for n, part in enumerate(parts)]
    split = opened(write(tmp_path / "set", *pairs))
    assert (train_names(split), val_names(split)) == ({"0", "1", "2", "3"}, {"4", "5"})
    assert "split as found" in split.note
    assert any("test/6.png" in remark for remark in split.remarks)


def test_images_named_test_are_in_no_split(tmp_path: Path) -> None:
    pairs = [
        (f"input/{part}/{n}.png", f"target/{part}/{n}.png") for n in range(5) for part in ("train", "test")
    ]
    split = opened(write(tmp_path / "set", *pairs))
    assert train_names(split) | val_names(split) == {"0", "1", "2", "3", "4"}
    assert len(split.train) + len(split.val) == 5


def test_several_degraded_folders_share_one_clean_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(5):
        save(folder / f"hq/{number}.png", noise_image(number))
        for place in ("camera1", "camera2"):
            save(folder / f"lq/{place}/{number}.png", noise_image(100 + 10 * number + len(place)))
    split = opened(folder, pair_by="*/{}={}")
    assert len(split.train) + len(split.val) == 10
    assert not {name[-1] for name in val_names(split)} & {name[-1] for name in train_names(split)}


def test_moved_folder_is_told_with_the_way_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", ("scan/0.png", "clean/0.png"), ("scan/1.png", "clean/1.png"))
    before = opened(folder).fingerprint
    shutil.move(folder, tmp_path / "moved")
    with pytest.raises(DataError, match=r"set: no such folder; .*--data DIR"):
        opened(folder)
    assert opened(tmp_path / "moved").fingerprint == before
