"""What belongs together stays together in a split that is made, and is told of one that was given."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.doctor import check_pairs
from data.files import DataError, write_png
from data.sources import PairsConfig, Split, SyntheticConfig
from data.sources.split import held_out
from tests.data.conftest import MakePairs, noise_image, save
from tests.data.examples import degraded, scene, write_scenes


def opened(folder: Path, cache: Path, **settings: object) -> Split:
    return PairsConfig(dir=folder, **settings).open(seed=0, cache=cache)


def sides(split: Split) -> tuple[set[str], set[str]]:
    train, val = ({part.name(index) for index in range(len(part))} for part in (split.train, split.val))
    return train, val


def write_copies(folder: Path, names: dict[str, int]) -> None:
    """A scan of its own for each name, of the clean scene with this number."""
    for place, (name, number) in enumerate(names.items()):
        for side, pixels in (("scan", degraded(scene(number), 500 + place)), ("clean", scene(number))):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write_png(folder / side / f"{name}.png", pixels)


def test_the_same_clean_image_is_on_one_side_of_a_new_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_copies(folder, {f"{number}{copy}": number for number in range(6) for copy in "ab"})
    (told,) = [finding for finding in check_pairs(folder, jobs=1).findings if finding.kind == "groups"]
    assert "12 in 6 groups" in told.found
    train, val = sides(opened(folder, tmp_path))
    assert val and not {name[0] for name in train} & {name[0] for name in val}
    (record,) = (tmp_path / "data").glob("split-*.json")
    assert sorted(json.loads(record.read_text())["together"]) == [[f"{n}a", f"{n}b"] for n in range(6)]


def test_pages_on_one_background_are_on_one_side_of_a_new_split(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(9):
        paper = scene(900 + number % 3, 256, 320)[..., :1] // 2 + 120
        clean = np.full_like(paper, 250)
        rng = np.random.default_rng(number)
        for _ in range(30):
            top, left = int(rng.integers(4, 240)), int(rng.integers(4, 280))
            clean[top : top + 3, left : left + 24] = 20
        for side, pixels in (("clean", clean), ("scan", np.minimum(paper, clean))):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write_png(folder / side / f"{number}.png", pixels)
    train, val = sides(opened(folder, tmp_path))
    assert val and not {int(name) % 3 for name in train} & {int(name) % 3 for name in val}


def test_images_that_have_nothing_in_common_are_split_as_ever(tmp_path: Path) -> None:
    write_scenes(tmp_path / "set", [f"{n:02}" for n in range(10)], seed=3)
    split = opened(tmp_path / "set", tmp_path)
    expected = held_out([f"{n:02}" for n in range(10)], 0.2, 0, tmp_path / "record.json", tmp_path)
    assert sides(split)[1] == expected
    assert "split by image" in split.note and split.remarks == ()


def test_a_split_that_exists_is_kept_and_new_copies_follow_their_group(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_copies(folder, {str(number): number for number in range(10)})
    before = sides(opened(folder, tmp_path))
    write_copies(folder, {f"{number}-again": number for number in range(10)})
    train, val = sides(opened(folder, tmp_path))
    assert before[0] <= train and before[1] <= val
    assert val == before[1] | {f"{name}-again" for name in before[1]}


def test_a_set_that_is_one_group_is_split_all_the_same_and_told(tmp_path: Path) -> None:
    write_copies(tmp_path / "set", {str(number): 7 for number in range(5)})
    split = opened(tmp_path / "set", tmp_path)
    assert (len(split.train), len(split.val)) == (4, 1)
    assert "1 are in training as well" in split.note
    assert "scores are too good" in split.remarks[-1]


def test_a_given_split_that_leaks_is_told_in_the_note_with_the_names(tmp_path: Path) -> None:
    write_copies(tmp_path / "set" / "train", {f"t{number}": number for number in range(4)})
    write_copies(tmp_path / "set" / "val", {"fresh": 20, "copy": 2})
    split = opened(tmp_path / "set", tmp_path)
    assert split.leaked == {"copy"}
    assert "of 2 validation images 1 are in training as well" in split.note
    assert "copy as t2" in split.remarks[0]
    again = opened(tmp_path / "set", tmp_path)  # from what was kept
    assert (again.note, again.remarks, again.leaked) == (split.note, split.remarks, split.leaked)


def test_a_given_split_without_leaks_says_nothing(tmp_path: Path) -> None:
    write_scenes(tmp_path / "set" / "train", ["a", "b", "c"], seed=1)
    write_scenes(tmp_path / "set" / "val", ["a", "b"], seed=2)
    split = opened(tmp_path / "set", tmp_path)
    assert (split.leaked, split.remarks) == (frozenset(), ())
    assert split.note.endswith("split as found")


def test_clean_images_alone_are_split_by_group_as_well(tmp_path: Path) -> None:
    for number in range(5):
        for copy in "ab":
            (tmp_path / "set").mkdir(exist_ok=True)
            write_png(tmp_path / "set" / f"{number}{copy}.png", scene(number))
    train, val = sides(SyntheticConfig(dir=tmp_path / "set", sigma=(9, 9)).open(seed=0, cache=tmp_path))
    assert val and not {name[0] for name in train} & {name[0] for name in val}


# Sides that are the same, and sides of two kinds.


def test_pairs_with_equal_sides_have_nothing_to_restore(make_pairs: MakePairs, tmp_path: Path) -> None:
    folder = make_pairs(*"abcde")
    for name in "abcd":
        (folder / f"scan/{name}.png").write_bytes((folder / f"clean/{name}.png").read_bytes())
    split = opened(folder, tmp_path)
    assert split.remarks == ("nothing to restore on 4 of 5 pairs: a, b, c and 1 more: both sides are equal",)
    save(folder / "scan/e.bmp", noise_image(4))  # the pixels of its clean side, in another format
    (folder / "scan/e.png").unlink()
    with pytest.raises(DataError, match="nothing to restore on 5 of 5 pairs"):
        opened(folder, tmp_path)


@pytest.mark.parametrize(("gray", "words"), [("scan", "a gray degraded and a colour clean"),
                                             ("clean", "a colour degraded and a gray clean")])  # fmt: skip
def test_gray_and_colour_sides_are_told_with_what_the_model_will_be(
    make_pairs: MakePairs, tmp_path: Path, gray: str, words: str
) -> None:
    folder = make_pairs(*"abcd")
    for name in "ab":
        path = folder / gray / f"{name}.png"
        Image.open(path).convert("L").save(path)
    assert f"2 of 4 pairs have {words} side: the model will be colour" in opened(folder, tmp_path).note
    assert "the model will be gray" in opened(folder, tmp_path, channels=1).note
    told = [finding for finding in check_pairs(folder, jobs=1).findings if finding.kind == "channels"]
    assert {key for finding in told for key in finding.pairs} == {"a", "b"}
