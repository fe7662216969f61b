"""Files that are seen whole or not at all."""

from pathlib import Path

import pytest

from data.files import whole_file


def test_new_content_is_seen_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("before")
    with whole_file(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.txt"
    path.write_text("before")

    def write() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with whole_file(path) as partial:
        partial.write_text("after")
    assert path.read_text() == "after"
