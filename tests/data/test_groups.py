"""Groups of images, from a file or a pattern, and the message for each thing that can be wrong with them."""

from pathlib import Path

import pytest

from data import image_groups
from data.files import DataError

NAMES = ["page1_a", "page1_b", "page2.x_a"]


def test_every_image_is_a_group_of_its_own_unless_told() -> None:
    assert image_groups(None, NAMES) == NAMES


def test_pattern_finds_the_group_anywhere_in_the_name() -> None:
    assert image_groups(r"ge(\d)", NAMES) == ["1", "1", "2"]


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_file_gives_groups_by_name_with_or_without_extension(tmp_path: Path, start: str) -> None:
    path = tmp_path / "groups.txt"
    path.write_text(
        f"{start}group,camera,name\none,x,page1_a.png\none,x, page1_b\ntwo,y,page2.x_a\nthree,y,not here\n",
        "utf-8",
    )
    assert image_groups(str(path), NAMES) == ["one", "one", "two"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("page1_(.)", "no group for 1 of 3 images: page2.x_a"),
        ("(z)?", "no group for 3 of 3 images: page1_a, page1_b, page2.x_a"),
        ("page(", "neither a file nor a valid regular expression: missing ), unterminated subpattern"),
        ("page.", "no such file, and a pattern needs one capture group, as in 'page(\\d+)' (found 0)"),
        ("(page)(.)", "(found 2)"),
        ("nowhere.csv", "cannot be read: No such file or directory"),
    ],
)
def test_pattern_that_gives_no_groups_is_refused(given: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        image_groups(given, NAMES)
    assert str(caught.value).startswith(f"--groups {given}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs the columns name,group in its first line (found: nothing)"),
        (b"name,page\na,1\n", "needs the columns name,group in its first line (found: name,page)"),
        (b"name,group\npage1_a,1\npage1_b,\n", "no group for 2 of 3 images: page1_b, page2.x_a"),
        (b"name,group\npage1_a\n", "no group for 3 of 3 images"),
        (b"name,group\npage1_a,1\npage1_a.png,2\n", "page1_a is in two groups, 1 and 2 (line 3)"),
        (b"name,group\n\xff\xfe,1\n", "not a CSV file: 'utf-8' codec"),
    ],
    ids=str,
)
def test_file_that_gives_no_groups_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        image_groups(str(path), NAMES)
    assert str(caught.value).startswith(f"--groups {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
