"""Folders of pairs: what is found in them, and the message for each thing that can be wrong."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from data.files import DataError, to_tensor, with_channels
from data.sources import PairsConfig, Split
from tests.data.conftest import MakePairs, noise_image, save


def opened(folder: Path, **settings: object) -> Split:
    return PairsConfig(dir=folder, **settings).open(seed=0, cache=folder.parent / "runs")


def names(split: Split) -> tuple[list[str], list[str]]:
    return tuple([part.name(i) for i in range(len(part))] for part in (split.train, split.val))  # type: ignore[return-value]


def test_partners_are_matched_by_stem_across_extensions_and_sorting_orders(tmp_path: Path) -> None:
    stems = ("a", "a.b", "10", "9", "Z", "ü")
    for number, stem in enumerate(stems):
        image = noise_image(number)
        save(tmp_path / "set/scan" / f"{stem}{('.png', '.bmp', '.tif')[number % 3]}", 255 - image)
        save(tmp_path / "set/clean" / f"{stem}{('.TIFF', '.png', '.bmp')[number % 3]}", image)
    split = opened(tmp_path / "set")
    found = {part.name(i): part.whole(i) for part in (split.train, split.val) for i in range(len(part))}
    assert set(found) == set(stems)
    for number, stem in enumerate(stems):
        assert torch.equal(found[stem].clean, to_tensor(noise_image(number)))
        torch.testing.assert_close(found[stem].degraded, 1 - found[stem].clean)


def test_train_and_val_folders_are_taken_as_they_are(make_pairs: MakePairs) -> None:
    make_pairs("b", "a", folder="set/train")
    split = opened(make_pairs("c", folder="set/val").parent)
    assert names(split) == (["a", "b"], ["c"])
    assert "2 train / 1 val pairs, colour 8 bit, split as found" in split.note


@pytest.mark.parametrize(
    ("scan", "clean"), [("noisy", "gt"), ("lq", "hq"), ("input", "target"), ("Noisy", "Clean")]
)
def test_known_folder_names_are_recognised(make_pairs: MakePairs, scan: str, clean: str) -> None:
    assert len(opened(make_pairs("a", "b", scan=scan, clean=clean)).train) == 1


def test_folder_names_can_be_given(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b", scan="before", clean="after/all")
    assert opened(folder, scan_dir="before", clean_dir="after/all").channels == 3


def test_hidden_and_foreign_files_are_ignored(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b")
    for name in (".DS_Store", "Thumbs.db", "._a.png", ".hidden.png", "notes.txt"):
        (folder / "scan" / name).write_bytes(b"no image")
    (folder / "clean" / "c.png").mkdir()
    train, val = names(opened(folder))
    assert sorted(train + val) == ["a", "b"]


def test_gray_and_colour_files_mix_on_either_side(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b", "c")
    gray = noise_image(7, channels=1)
    save(folder / "scan/a.png", gray)
    colour, flat = opened(folder, val_fraction=0.3), opened(folder, val_fraction=0.3, channels=1)
    assert (colour.channels, flat.channels) == (3, 1)
    for split in (colour, flat):
        for part in (split.train, split.val):
            for i in range(len(part)):
                assert part.whole(i).degraded.shape == part.whole(i).clean.shape == (split.channels, 17, 23)
                if part.name(i) == "a":
                    assert torch.equal(part.whole(i).degraded, to_tensor(with_channels(gray, split.channels)))


def test_gray_files_alone_make_a_gray_split(make_pairs: MakePairs) -> None:
    split = opened(make_pairs("a", "b", channels=1))
    assert split.channels == 1
    assert "gray 8 bit" in split.note


def test_8_and_16_bit_files_mix_without_loss(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b", channels=1)
    deep = np.random.default_rng(0).integers(0, 65536, (17, 23, 1)).astype(np.uint16)
    save(folder / "clean/a.png", deep)
    split = opened(folder)
    found = {part.name(i): part.whole(i) for part in (split.train, split.val) for i in range(len(part))}
    assert torch.equal(found["a"].clean, to_tensor(deep))
    assert torch.equal(found["b"].clean, to_tensor(noise_image(1, channels=1)))


def test_one_warning_counts_all_palette_and_transparent_files(
    make_pairs: MakePairs, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_pairs("a", "b", "c", "d", "e")
    for name in "abcd":
        Image.open(folder / f"scan/{name}.png").convert("P").save(folder / f"scan/{name}.png")
    Image.open(folder / "clean/e.png").convert("RGBA").save(folder / "clean/e.png")
    with caplog.at_level(logging.WARNING):
        opened(folder)
    assert len(caplog.records) == 1
    assert "5 images with palette" in caplog.text
    assert "and 2 more" in caplog.text


def test_one_pixel_images_work(tmp_path: Path) -> None:
    for number, size in enumerate([(1, 1), (1, 5), (5, 1)]):
        for seed, side in enumerate(("scan", "clean")):
            save(tmp_path / "set" / side / f"{number}.png", noise_image(10 * seed + number, *size))
    assert len(opened(tmp_path / "set").train) == 2


def test_fingerprint_changes_with_a_pixel_and_not_with_the_place(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    folder = make_pairs("a", folder="set/train")
    make_pairs("b", folder="set/val")
    before = opened(folder.parent).fingerprint
    moved = shutil.copytree(folder.parent, tmp_path / "elsewhere" / "set")
    assert opened(moved).fingerprint == before
    image = noise_image(0)
    image[3, 4] ^= 1
    save(moved / "train/clean/a.png", image)
    assert opened(moved).fingerprint != before


def test_config_survives_json_and_refuses_unknown_settings(tmp_path: Path) -> None:
    config = PairsConfig(dir=tmp_path, scan_dir="x", channels=3)
    assert PairsConfig.model_validate_json(config.model_dump_json()) == config
    for wrong in ({"folder": "x"}, {"val_fraction": 0}, {"channels": 2}, {"scan_dir": "/elsewhere"}):
        with pytest.raises(ValidationError):
            PairsConfig.model_validate({"dir": str(tmp_path), **wrong})


def test_all_pairs_of_a_folder_open_as_one_set(make_pairs: MakePairs, tmp_path: Path) -> None:
    config = PairsConfig(dir=make_pairs("b", "a", scan="noisy", clean="gt"))
    pairs = config.open_all(cache=tmp_path)
    assert [pairs.name(index) for index in range(len(pairs))] == ["a", "b"]
    assert torch.equal(pairs.whole(1).clean, to_tensor(noise_image(0)))
    assert torch.equal(pairs.whole(1).degraded, to_tensor(255 - noise_image(0)))
    assert not (tmp_path / "data").exists()  # nothing is split, nothing is written down


def test_one_pair_is_enough_to_judge_by(make_pairs: MakePairs, tmp_path: Path) -> None:
    assert len(PairsConfig(dir=make_pairs("a")).open_all(cache=tmp_path)) == 1


# What bad input gets.


@pytest.mark.parametrize("folder", ["nowhere", "file", "set"])
def test_folder_without_pairs_to_judge_by_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "set" / "train").mkdir(parents=True)
    with pytest.raises(
        DataError, match=rf"{folder}: (no such folder|not a folder|no folder named scan, .*train)"
    ):
        PairsConfig(dir=tmp_path / folder).open_all(cache=tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        opened(tmp_path / "nowhere")


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").touch()
    with pytest.raises(DataError, match=r"set: not a folder"):
        opened(tmp_path / "set")


def test_unknown_folder_names_are_answered_with_the_known_ones(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", scan="before", clean="after")
    with pytest.raises(DataError, match=r"no folder named scan, .* \(found: after, before\)\n.*--scan-dir"):
        opened(folder)


def test_missing_folder_given_by_name_is_named(make_pairs: MakePairs) -> None:
    with pytest.raises(DataError, match=r"beffore: no such folder \(--scan-dir beffore\)"):
        opened(make_pairs("a", scan="before"), scan_dir="beffore")


def test_two_possible_folders_ask_for_a_choice(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", scan="noisy", clean="gt")
    make_pairs("a", scan="lq", clean="gt")
    with pytest.raises(DataError, match=r"noisy, lq could all be meant; choose with --scan-dir"):
        opened(folder)


def test_one_folder_for_both_sides_is_refused(make_pairs: MakePairs) -> None:
    with pytest.raises(DataError, match="both the degraded and the clean"):
        opened(make_pairs("a"), scan_dir="clean")


def test_val_without_train_is_refused(make_pairs: MakePairs) -> None:
    with pytest.raises(DataError, match=r"has val/ but no train/"):
        opened(make_pairs("a", folder="set/val").parent)


def test_folder_without_images_is_named_with_the_known_extensions(make_pairs: MakePairs) -> None:
    folder = make_pairs("a")
    (folder / "scan/a.png").unlink()
    with pytest.raises(DataError, match=r"scan: no images \(looked for .png .jpg"):
        opened(folder)


def test_images_without_partner_are_counted_and_named(make_pairs: MakePairs) -> None:
    folder = make_pairs(*"abcdefg")
    for name in "bcdef":
        (folder / f"scan/{name}.png").unlink()
    (folder / "clean/a.png").unlink()
    with pytest.raises(DataError) as caught:
        opened(folder)
    message = str(caught.value)
    assert "scan has 2 images" in message
    assert "clean has 6" in message
    assert "no partner for 5 of" in message
    assert "b, c, d and 2 more" in message
    assert "no partner for 1 of" in message
    assert len(message.splitlines()) <= 2


def test_differing_sizes_are_named(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b", "c")
    save(folder / "scan/b.png", noise_image(0, 17, 24))
    with pytest.raises(DataError, match=r"b.png is 24x17, .* is 23x17"):
        opened(folder)


def test_one_name_twice_in_a_folder_is_refused(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b")
    save(folder / "clean/a.bmp", noise_image(0))
    with pytest.raises(DataError, match=r"clean: two images of one name, a.bmp and a.png"):
        opened(folder)


def test_single_pair_is_too_few_to_split(make_pairs: MakePairs) -> None:
    with pytest.raises(DataError, match="1 pair, too few to split; at least 2"):
        opened(make_pairs("a"))


def test_all_damaged_files_are_counted_and_the_first_is_explained(make_pairs: MakePairs) -> None:
    folder = make_pairs(*"abcdef")
    for name in "bcde":
        path = folder / f"scan/{name}.png"
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(
        DataError, match=r"b.png: cannot be read, damaged or cut short .*\n4 files .* and 1 more"
    ):
        opened(folder)


def test_zero_byte_file_is_named(make_pairs: MakePairs) -> None:
    folder = make_pairs("a", "b")
    (folder / "clean/b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b.png: the file is empty"):
        opened(folder)


def test_unwritable_cache_is_named(make_pairs: MakePairs, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(DataError, match=r"runs.data: cannot be made .*--out"):
        opened(make_pairs("a", "b"))
