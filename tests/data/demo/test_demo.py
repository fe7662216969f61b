"""The demo set: the same every time, whole or absent, and honest about its split."""

from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from data import DataConfig
from data.demo import DemoConfig, source
from data.demo.pages import LAYOUTS, render_page
from data.demo.scanner import PAGE, PHOTO, poor_scan
from data.demo.texts import TRAIN_TEXTS, VAL_TEXTS
from data.files import DataError, Pixels, decode_image

PARTS = {"train": source.TRAIN, "val": source.VAL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    source.make_demo(made)
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo set of one page and one photograph on each side."""
    photo = (source.Photo("skimage/data/coins.png"),)
    for name, part in PARTS.items():
        monkeypatch.setattr(source, name.upper(), part._replace(photos=photo, pages=1))


def test_demo_is_small_enough_to_validate_often(folder: Path) -> None:
    sizes = {
        part: [decode_image(path).shape for path in (folder / part / "clean").iterdir()] for part in PARTS
    }
    assert 40 <= len(sizes["train"]) <= 60
    assert 8 <= len(sizes["val"]) <= 12
    assert sum(height * width for height, width, _ in sizes["val"]) <= 600_000
    assert all(200 <= side <= 400 for shapes in sizes.values() for shape in shapes for side in shape[:2])


def test_both_sides_of_every_pair_have_one_name_and_shape(folder: Path) -> None:
    for part in PARTS:
        names = {
            side: sorted(path.name for path in (folder / part / side).iterdir()) for side in ("scan", "clean")
        }
        assert names["scan"] == names["clean"]
        for name in names["scan"]:
            assert (
                decode_image(folder / part / "scan" / name).shape
                == decode_image(folder / part / "clean" / name).shape
            )


def test_scans_are_degraded_but_recognisable(folder: Path) -> None:
    for part in PARTS:
        for path in (folder / part / "scan").iterdir():
            scan, clean = (decode_image(p).astype(float) for p in (path, folder / part / "clean" / path.name))
            psnr_db = 10 * np.log10(255**2 / np.square(scan - clean).mean())
            assert (9 if "page" in path.name else 18) < psnr_db < 30, path.name


def test_no_photograph_and_no_passage_is_on_both_sides() -> None:
    assert not {photo.file for photo in source.TRAIN.photos} & {photo.file for photo in source.VAL.photos}
    assert not set(TRAIN_TEXTS) & set(VAL_TEXTS)
    words = [
        {tuple(text.split()[i : i + 4]) for text in texts for i in range(len(text.split()) - 3)}
        for texts in (TRAIN_TEXTS, VAL_TEXTS)
    ]
    assert not words[0] & words[1]


def test_tiles_of_a_photograph_do_not_overlap() -> None:
    for photo in source.TRAIN.photos + source.VAL.photos:
        tiles = source.photo_tiles(photo)
        assert tiles
        assert len({tile.tobytes() for tile in tiles}) == len(tiles)
    for length in (256, 300, 512, 741):
        starts = source.tile_positions(length, 256)
        assert all(after - before >= 256 for before, after in zip(starts, [*starts[1:], length], strict=True))


def test_photographs_are_listed_by_their_packages() -> None:
    for photo in source.TRAIN.photos + source.VAL.photos:
        package, _, _ = photo.file.partition("/")
        distribution = {"skimage": "scikit-image"}.get(package, package)
        assert photo.file in {str(file) for file in files(distribution) or ()}


def test_missing_photograph_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = source.TRAIN._replace(photos=(source.Photo("skimage/data/gone.png"),))
    monkeypatch.setattr(source, "TRAIN", missing)
    with pytest.raises(DataError, match=r"gone.png: not shipped by the installed skimage"):
        DemoConfig().open(seed=0, cache=tmp_path)


@pytest.mark.usefixtures("small")
def test_demo_is_the_same_in_every_folder_and_for_every_seed(tmp_path: Path) -> None:
    one = DemoConfig().open(seed=0, cache=tmp_path / "one")
    other = DemoConfig().open(seed=1, cache=tmp_path / "two")
    assert one.fingerprint == other.fingerprint
    assert (one.channels, len(one.train), len(one.val)) == (3, 2, 2)


@pytest.mark.usefixtures("small")
def test_demo_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DemoConfig().open(seed=0, cache=tmp_path)
    monkeypatch.setattr(source, "make_demo", lambda folder: pytest.fail("made again"))
    assert DemoConfig().open(seed=0, cache=tmp_path).fingerprint == first.fingerprint
    assert "demo-1" in first.note


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("blow", [KeyboardInterrupt, OSError])
def test_interrupted_making_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blow: type[BaseException]
) -> None:
    def half(pixels: Pixels, *rest: object) -> Pixels:
        raise blow

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, ValueError)):
        patch.setattr(source, "poor_scan", half)
        DemoConfig().open(seed=0, cache=tmp_path)
    assert list((tmp_path / "data").iterdir()) == []
    assert len(DemoConfig().open(seed=0, cache=tmp_path).train) == 2


@pytest.mark.usefixtures("small")
def test_set_made_by_a_faster_process_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = source.make_demo

    def overtaken(folder: Path) -> None:
        make(tmp_path / "data/demo-1")
        make(folder)

    monkeypatch.setattr(source, "make_demo", overtaken)
    assert len(DemoConfig().open(seed=0, cache=tmp_path).train) == 2
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == ["demo-1"]


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize("size", [(224, 288), (100, 120)])
def test_every_layout_prints_dark_on_white(layout: int, size: tuple[int, int]) -> None:
    image = render_page(*size, TRAIN_TEXTS, layout, np.random.default_rng(layout))
    assert image.shape == (*size, 3)
    assert np.median(image) > 250
    assert (image.min(-1) < 100).mean() > 0.01


@pytest.mark.parametrize("wear", [PAGE, PHOTO])
def test_scan_of_a_sheet_keeps_its_place(wear: object) -> None:
    sheet = np.full((120, 130, 3), 255, np.uint8)
    sheet[40:80, 50:90] = 0
    scan = poor_scan(sheet, wear, np.random.default_rng(0)).mean(-1)  # type: ignore[arg-type]
    rows, columns = np.nonzero(scan < (scan[45:75, 55:85].mean() + np.median(scan)) / 2)
    assert abs(np.median(rows) - 59.5) < 1.5
    assert abs(np.median(columns) - 69.5) < 1.5


def test_every_source_is_told_from_its_kind(tmp_path: Path) -> None:
    union = TypeAdapter[object](DataConfig)
    for kind in ("pairs", "synthetic"):
        config = union.validate_python({"kind": kind, "dir": str(tmp_path)})
        assert union.validate_json(union.dump_json(config)) == config
    assert union.validate_python({"kind": "demo"}) == DemoConfig()
