"""Messages of errors, shortened."""

import pytest

from search.errors import first_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no such file", "no such file"),
        ("\nfirst\nsecond", "first"),
        ("", "ValueError"),
        (" \n", "ValueError"),
    ],
)
def test_first_line_is_never_empty(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
