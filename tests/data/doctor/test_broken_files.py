"""Odd and broken files: whatever lies in a folder, the pair doctor says so and goes on."""

import json
import os
from pathlib import Path

import pytest

from data.files import DataError, decode_image
from search.__main__ import main
from tests.broken_images import write_all
from tests.data.examples import write_scenes


@pytest.mark.filterwarnings("ignore")
def test_what_decodes_is_what_the_list_of_broken_files_calls_readable(tmp_path: Path) -> None:
    def decodes(path: Path) -> bool:
        try:
            decode_image(path)
        except DataError:
            return False
        return True

    readable = write_all(tmp_path)
    assert len(readable) >= 40
    assert {name: decodes(tmp_path / name) for name in readable} == readable


def test_every_broken_file_is_told_and_none_stops_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "set", [f"good {n}" for n in range(6)], seed=1)
    readable = write_all(tmp_path / "set" / "scan")
    write_all(tmp_path / "set" / "clean")
    html, copy = tmp_path / "page.html", tmp_path / "mended"

    code = main(["check", str(tmp_path / "set"), "--jobs", "1", "--html", str(html), "--fix", str(copy)])
    text = capsys.readouterr()

    assert code == 1
    assert "Traceback" not in text.out + text.err
    assert "would spoil a search" in text.out
    assert "&lt;b&gt;&amp;amp;" in html.read_text("utf-8")
    assert {path.name for path in (copy / "train" / "scan").iterdir()} >= {"good 1.png", "good 2.png"}

    assert main(["check", str(tmp_path / "set"), "--jobs", "1", "--json", "-"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    concerned = {Path(path).name for finding in findings for path in finding["files"]}
    for name, shows in readable.items():
        assert shows or name in concerned, f"{os.fsencode(name)!r} cannot be read, and nothing was said"


@pytest.mark.parametrize("side", ["scan", "clean"])
def test_each_broken_file_alone_gives_the_right_exit_code(
    tmp_path: Path, side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "set", ["a", "b"], seed=1)
    readable = write_all(tmp_path / "odd")
    partner = (tmp_path / "set" / "clean" / "a.png").read_bytes()
    other = "clean" if side == "scan" else "scan"
    for name, shows in readable.items():
        if shows or Path(name).suffix.lower() in (".webp",) or not (tmp_path / "odd" / name).is_file():
            continue
        place = tmp_path / "set" / side / name
        (tmp_path / "odd" / name).rename(place)
        (tmp_path / "set" / other / f"{Path(name).stem}.png").write_bytes(partner)
        assert main(["check", str(tmp_path / "set"), "--jobs", "1", "--quiet"]) == 1, name
        place.unlink()
        (tmp_path / "set" / other / f"{Path(name).stem}.png").unlink()
    assert capsys.readouterr() == ("", "")
