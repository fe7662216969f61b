"""Odd and broken files, one by one."""

from pathlib import Path

import pytest

from data.images import DataError, decode
from tests.broken_images import write_all


@pytest.mark.filterwarnings("ignore")
def test_what_decodes_is_what_the_list_of_broken_files_calls_readable(tmp_path: Path) -> None:
    def decodes(path: Path) -> bool:
        try:
            decode(path)
        except DataError:
            return False
        return True

    readable = write_all(tmp_path)
    assert len(readable) >= 40
    assert {name: decodes(tmp_path / name) for name in readable} == readable
