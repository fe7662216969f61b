"""Images mapped from disk are the images in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data import TrainLoader
from data.cropping import Augmentation
from data.files import DataError
from data.sources import PairsConfig, Split, pixel_cache
from tests.data.conftest import MakePairs, noise_image, save


def opened(folder: Path) -> Split:
    return PairsConfig(dir=folder).open(seed=0, cache=folder.parent / "runs")


@pytest.mark.parametrize("deep", [False, True])
def test_mapped_crops_equal_crops_from_memory(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    folder = make_pairs("a", "b", "c")
    if deep:
        save(folder / "clean/b.png", noise_image(5).astype(np.uint16) * 200)
    in_memory = opened(folder)
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    made, found_again = opened(folder), opened(folder)
    assert len(list((folder.parent / "runs/data").glob("pixels-*.raw"))) == 1
    assert in_memory.fingerprint == made.fingerprint == found_again.fingerprint
    loaders = [
        TrainLoader(split.train, batch=4, patch=8, augmentation=Augmentation(), seed=0)
        for split in (in_memory, made, found_again)
    ]
    for step in range(5):
        first, *others = (loader.batch(step) for loader in loaders)
        assert all(torch.equal(first.clean, other.clean) for other in others)
        assert all(torch.equal(first.degraded, other.degraded) for other in others)
    assert torch.equal(in_memory.val.whole(0).clean, made.val.whole(0).clean)


def test_files_are_decoded_once_for_the_map(make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_pairs("a", "b")
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    opened(folder)
    monkeypatch.setattr(pixel_cache, "decode_image", lambda path: pytest.fail(f"decoded {path} again"))
    opened(folder)


def test_changed_file_is_not_taken_from_an_old_map(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_pairs("a", "b")
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    before = opened(folder)
    save(folder / "clean/a.png", noise_image(9, 17, 23))
    assert opened(folder).fingerprint != before.fingerprint


def test_map_cut_short_is_made_again(make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_pairs("a", "b")
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    before = opened(folder)
    expected = before.train.whole(0).clean
    (raw,) = (folder.parent / "runs/data").glob("pixels-*.raw")
    index = raw.with_suffix(".json")
    for damage in (
        lambda: raw.write_bytes(b"short"),
        index.unlink,
        raw.unlink,
        lambda: index.write_text("{"),
    ):
        damage()
        assert torch.equal(opened(folder).train.whole(0).clean, expected)
        assert json.loads(index.read_text())["files"] == 4


def test_full_disk_is_told_before_anything_is_written(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_pairs("a", "b")
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    monkeypatch.setattr(
        pixel_cache.shutil, "disk_usage", lambda path: pixel_cache.shutil._ntuple_diskusage(10, 10, 0)
    )
    with pytest.raises(DataError, match=r"need 0.0 GB, 0.0 GB are free"):
        opened(folder)
    assert not list((folder.parent / "runs/data").glob("*pixels*"))


def test_damaged_file_leaves_no_map_behind(make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_pairs("a", "b")
    path = folder / "scan/a.png"
    path.write_bytes(path.read_bytes()[:-400])
    monkeypatch.setattr(pixel_cache, "RAM_SHARE", 0.0)
    with pytest.raises(DataError, match=r"a.png"):
        opened(folder)
    assert not list((folder.parent / "runs/data").glob("*pixels*"))


def test_pixels_cannot_be_changed_by_accident(make_pairs: MakePairs) -> None:
    split = opened(make_pairs("a", "b"))
    split.train.whole(0).clean.zero_()
    assert split.train.whole(0).clean.max() > 0
