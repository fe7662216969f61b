"""The command `check`: exit codes, what is printed and written, and the mended copy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import decode_image, write_png
from search.__main__ import main
from search.datacheck import warnings_for_a_search
from search.datacheck.report import printable
from tests.data.examples import write_scenes

_ORIENTATION = 0x0112
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """DIR/{train,val}/{scan,clean} with 12 and 5 pairs that nothing is wrong with."""
    write_scenes(tmp_path / "set" / "train", [f"page-{n}" for n in range(12)], seed=1)
    write_scenes(tmp_path / "set" / "val", [f"page-{n}" for n in range(12, 17)], seed=2)
    return tmp_path / "set"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str]:
        code = main(["check", *map(str, arguments), "--jobs", "1"])
        return code, capsys.readouterr().out

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_good_pairs_are_told_to_be_good_and_exit_with_0(pairs: Path, run: Run) -> None:
    code, text = run(pairs)
    assert code == 0
    assert "17 pairs (12 train, 5 val)" in text
    assert "error" not in text
    assert text.rstrip().splitlines()[-1].startswith("Nothing here would spoil a search")


def test_errors_exit_with_1_and_warnings_alone_with_0(pairs: Path, run: Run) -> None:
    path = pairs / "train" / "scan" / "page-3.png"
    path.rename(path.with_suffix(".bmp"))
    code, text = run(pairs)
    assert (code, "the file is PNG" in text) == (0, True)
    (pairs / "train" / "clean" / "page-4.png").write_bytes(b"")
    code, text = run(pairs)
    assert (code, "1 error would spoil a search: empty files" in text) == (1, True)


def test_mistakes_of_usage_exit_with_2_in_a_line(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        [tmp_path / "nowhere"],
        [pairs / "train" / "scan"],
        [pairs, "--clean-dir", "gt"],
        [pairs, "--jobs", "0"],
        [pairs, "--groups", "page"],
        [pairs, "--fix", pairs / "inside"],
        [pairs, "--fix", pairs],
        [pairs, "--fix", tmp_path / "out", "--groups", "(("],
        [pairs, "--html", pairs / "train" / "scan" / "page-1.png" / "page.html"],
    ):
        before = contents(pairs)
        assert main(["check", *map(str, arguments)]) == 2, arguments
        told = capsys.readouterr().err
        assert told.startswith("search check: ")
        assert len(told.splitlines()) <= 2
        assert contents(pairs) == before


def test_json_has_every_finding_and_nothing_else_on_the_terminal(
    pairs: Path, run: Run, tmp_path: Path
) -> None:
    for number in range(8):
        (pairs / "train" / "scan" / f"page-{number}.png").unlink()
    code, text = run(pairs, "--json", "-")
    told = json.loads(text)
    assert (code, told["pairs"], told["spoiled"]) == (1, 9, True)
    missing = [finding for finding in told["findings"] if finding["kind"] == "missing-mate"]
    assert [Path(finding["files"][0]).name for finding in missing] == [f"page-{n}.png" for n in range(8)]
    _, text = run(pairs, "--json", tmp_path / "deep" / "found.json")
    assert json.loads((tmp_path / "deep" / "found.json").read_text("utf-8")) == told
    assert "and 2 more" in text


def test_page_is_whole_in_itself_and_escapes_names(pairs: Path, run: Run, tmp_path: Path) -> None:
    for side in ("scan", "clean"):
        path = pairs / "train" / side / "page-3.png"
        path.rename(path.with_name("<b>&.png"))
    write_png(
        pairs / "train" / "scan" / "<b>&.png", 255 - decode_image(pairs / "train" / "scan" / "<b>&.png")
    )
    run(pairs, "--html", tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text("utf-8")
    assert "negative on one side" in page
    assert page.count("data:image/jpeg;base64,") >= 2
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&." not in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_of_other_bytes_are_written_out() -> None:
    assert printable("스캔 1.png") == "스캔 1.png"
    assert printable("two\nlines\t\udcff\x1b[31m") == r"two\nlines\t\udcff\x1b[31m"


def test_originals_are_never_touched_and_the_copy_is_good(pairs: Path, run: Run, tmp_path: Path) -> None:
    train = pairs / "train"
    (train / "scan" / "page-0.png").unlink()
    (train / "clean" / "page-1.png").write_bytes(b"")
    upright = decode_image(train / "scan" / "page-2.png")
    exif = Image.Exif()
    exif[_ORIENTATION] = 8
    Image.fromarray(np.rot90(upright, -1)).save(train / "scan" / "page-2.png", exif=exif)
    swapped = [(train / side / "page-3.png").read_bytes() for side in ("scan", "clean")]
    for side, content in zip(("clean", "scan"), swapped, strict=True):
        (train / side / "page-3.png").write_bytes(content)
    write_png(train / "scan" / "page-4.png", decode_image(train / "scan" / "page-4.png")[::-1, ::-1])
    deep = decode_image(train / "clean" / "page-5.png").astype(np.uint16) * 257
    write_png(train / "clean" / "page-5.png", deep)
    for side in ("scan", "clean"):
        shutil.copy(train / side / "page-6.png", pairs / "val" / side / "leaked.png")
    (train / "scan" / "page-7.png").rename(train / "scan" / "page-7.tif")
    before = contents(pairs)

    code, text = run(pairs, "--fix", tmp_path / "mended")

    assert code == 1
    assert "read what-was-done.txt" in text
    assert contents(pairs) == before
    mended = tmp_path / "mended" / "train"
    assert not (mended / "clean" / "page-0.png").exists()
    assert not (mended / "scan" / "page-1.png").exists()
    assert np.array_equal(decode_image(mended / "scan" / "page-2.png"), upright)
    assert [(mended / side / "page-3.png").read_bytes() for side in ("scan", "clean")] == swapped
    assert np.array_equal(
        decode_image(mended / "scan" / "page-4.png"), decode_image(train / "scan" / "page-4.png")[::-1, ::-1]
    )
    assert decode_image(mended / "scan" / "page-5.png").dtype == np.uint16
    assert (mended / "scan" / "page-7.png").read_bytes() == before["train/scan/page-7.tif"]
    done = (tmp_path / "mended" / "what-was-done.txt").read_text("utf-8")
    for told in (
        "train/page-3: sides exchanged",
        "train/page-1: empty files",
        "page-7.tif is PNG: named .png",
    ):
        assert told in done
    code, text = run(tmp_path / "mended")
    assert code == 0, text


def test_split_by_group_keeps_groups_together_and_holds_some_out(run: Run, tmp_path: Path) -> None:
    names = [f"book{book}_page{page}" for book in range(6) for page in range(4)]
    write_scenes(tmp_path / "set", names, seed=3)
    code, text = run(tmp_path / "set", "--fix", tmp_path / "out", "--groups", r"(book\d)")
    assert code == 0, text
    books = {
        part: {path.name[:5] for path in (tmp_path / "out" / part / "clean").iterdir()}
        for part in ("train", "val")
    }
    assert not books["train"] & books["val"]
    assert len(books["train"] | books["val"]) == 6
    assert len(books["val"]) == 1, "a fifth of 24 pairs is nearest to one book of 4"


def test_existing_folder_is_never_written_into(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", "utf-8")
    assert main(["check", str(pairs), "--fix", str(tmp_path / "out"), "--jobs", "1"]) == 2
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]


def test_a_search_is_warned_of_what_the_fast_part_finds(pairs: Path) -> None:
    assert warnings_for_a_search(pairs) == []
    shutil.copy(pairs / "train" / "clean" / "page-1.png", pairs / "val" / "clean" / "page-13.png")
    (lines,) = warnings_for_a_search(pairs)
    assert lines.startswith("training and validation share images: ")
    assert "train/page-1" in lines
    assert "val/page-13" in lines
