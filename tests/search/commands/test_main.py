"""The command line: what bad input gets, and what help says."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.files import write_png
from search.__main__ import main, parse

StudyFile = Callable[..., Path]
Refused = Callable[..., str]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def refused(study_file: StudyFile, out: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs the tiny study with other arguments and gives what it says; checks that it refuses in good form."""

    def run(*arguments: object, study: object = None) -> str:
        command = ["run", "--study", str(study or study_file()), "--out", str(out), *map(str, arguments)]
        assert main(command) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert 1 <= len(captured.err.splitlines()) <= 2
        assert captured.err.startswith("search run: ")
        assert "Traceback" not in captured.err
        return captured.err.removeprefix("search run: ").strip()

    return run


@pytest.fixture
def pairs(pairs_folder: Path, tmp_path: Path) -> Path:
    """A copy of the pairs that a test may spoil."""
    return Path(shutil.copytree(pairs_folder, tmp_path / "mine"))


def test_missing_folder(refused: Refused, tmp_path: Path) -> None:
    said = refused("--data", tmp_path / "nope")
    assert said.startswith(f"{tmp_path}/nope: no such folder; ") and said.endswith("--data DIR")


def test_file_in_the_place_of_a_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert refused("--data", tmp_path / "file") == f"{tmp_path}/file: not a folder"


def test_folder_without_pairs(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no folder named scan, " in refused("--data", tmp_path / "empty")
    (tmp_path / "empty" / "scan").mkdir()
    (tmp_path / "empty" / "clean").mkdir()
    assert "empty/scan: no images (looked for .png " in refused("--data", tmp_path / "empty")


def test_unmatched_stems(refused: Refused, pairs: Path) -> None:
    (pairs / "val" / "scan" / "page-6.png").rename(pairs / "val" / "scan" / "page-60.png")
    message = refused("--data", pairs)
    assert f"no partner for 1 of {pairs}/val/scan: page-60" in message
    assert f"no partner for 1 of {pairs}/val/clean: page-6" in message


def test_differing_sizes(refused: Refused, pairs: Path) -> None:
    write_png(pairs / "train" / "scan" / "page-2.png", np.zeros((17, 24, 1), np.uint8))
    message = refused("--data", pairs)
    assert "page-2" in message
    assert "24x17" in message
    assert "23x17" in message


def test_truncated_file(refused: Refused, pairs: Path) -> None:
    path = pairs / "train" / "clean" / "page-1.png"
    path.write_bytes(path.read_bytes()[:-40])
    assert refused("--data", pairs).startswith(f"{path}: cannot be read, damaged or cut short")


def test_unreadable_file(refused: Refused, pairs: Path) -> None:
    path = pairs / "train" / "clean" / "page-1.png"
    path.write_text("this is no picture")
    assert refused("--data", pairs).startswith(f"{path}: not a readable image")


def test_zero_byte_file(refused: Refused, pairs: Path) -> None:
    path = pairs / "val" / "scan" / "page-5.png"
    path.write_bytes(b"")
    assert refused("--data", pairs) == f"{path}: the file is empty (0 bytes)"


def test_folder_names_that_are_not_there(refused: Refused, pairs: Path) -> None:
    assert refused("--data", pairs, "--scan-dir", "noisy").endswith(
        "noisy: no such folder (--scan-dir noisy)"
    )
    assert "must be the name of a folder inside DIR" in refused("--data", pairs, "--scan-dir", "/etc")
    assert "which is missing" in refused("--scan-dir", "scan")


def test_unknown_study(refused: Refused) -> None:
    assert refused(study="kbent").startswith("unknown study 'kbent'; did you mean kbnet?")


def test_missing_study_file(refused: Refused, tmp_path: Path) -> None:
    assert refused(study=tmp_path / "nope.toml") == f"{tmp_path}/nope.toml: no such study file"
    assert "neither a shipped study" in refused(study=tmp_path / "nope")


def test_broken_toml(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[recipe\n")
    message = refused(study=tmp_path / "broken.toml")
    assert message.startswith(f"{tmp_path}/broken.toml: not valid TOML: ")
    assert "line 1" in message


def test_mistake_in_a_study(refused: Refused, study_file: StudyFile) -> None:
    assert "did you mean layers?" in refused(study=study_file(("layers", "layer")))


def test_changed_study_under_its_old_name(refused: Refused, study_file: StudyFile, out: Path) -> None:
    assert main(["run", "--study", str(study_file()), "--out", str(out), "--trials", "1", "--quiet"]) == 0
    message = refused(study=study_file(("steps = 8", "steps = 9")))
    assert (
        "has another recipe: recipe.steps was 8, now 9\nEither start a new study (--name tiny-2)" in message
    )


def test_runs_folder_that_cannot_be_written(study_file: StudyFile, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("kept")
    assert "file: cannot write here: File exists; --out names another folder" in refused(
        "--out", tmp_path / "file"
    )
    assert "cannot write here: Not a directory" in refused("--out", tmp_path / "file" / "runs")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_runs_folder_without_permission(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot write here: Permission denied" in refused("--out", tmp_path / "locked")


def test_database_of_another_program(refused: Refused, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "photos.db")
    connection.execute("create table albums (name text)")
    connection.close()
    before = (tmp_path / "photos.db").read_bytes()
    assert "a database of another program (tables albums)" in refused(
        "--storage", f"sqlite:///{tmp_path}/photos.db"
    )
    assert (tmp_path / "photos.db").read_bytes() == before


def test_file_that_is_no_database(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("dear diary, " * 100)
    assert "cannot be used as a database" in refused("--storage", f"sqlite:///{tmp_path}/notes.db")
    assert "not a database URL" in refused("--storage", tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_text() == "dear diary, " * 100


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:", "0", ""])
def test_device_that_is_not_there(name: str, refused: Refused) -> None:
    assert f"--device {name}: not on this machine; there are auto, cpu" in refused("--device", name)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--timeout", "soon", '"soon" is not a duration; write 90s, 20m, 1h30m or 2d'),
        ("--trials", "0", "Input should be greater than or equal to 1 (found 0)"),
        ("--seed", "-1", "Input should be greater than or equal to 0 (found -1)"),
        ("--name", "a\nb", "'a\\nb' has a line end, a tab or another control sign; no name can"),
        ("--name", "a" * 201, "201 signs are too many for a name; at most 200"),
    ],
)
def test_flag_with_a_value_that_makes_no_sense(flag: str, value: str, message: str, refused: Refused) -> None:
    assert refused(f"{flag}={value}").startswith(f"{flag}: {message}")


def test_fixed_channels_that_the_images_do_not_have(refused: Refused, study_file: StudyFile) -> None:
    message = refused(study=study_file(("layers = 3", "layers = 3\nchannels = 3")))
    assert message.startswith("recipe.model.channels is 3, but the images have 1: leave it out")


def test_export_of_what_is_not_there(
    out: Path, tmp_path: Path, study_file: StudyFile, capfd: pytest.CaptureFixture[str]
) -> None:
    for study in (str(study_file()), "kbnet", str(tmp_path / "nope.toml")):
        assert main(["export-best", "--study", study, "--out", str(out)]) == 2
        captured = capfd.readouterr()
        assert captured.err.startswith("search export-best: ")
        assert len(captured.err.splitlines()) <= 2
    assert not out.exists()


def test_refusal_in_a_process_of_its_own_has_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "search",
            "run",
            "--study",
            "kbnet",
            "--data",
            str(tmp_path / "nope"),
            "--out",
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"search run: {tmp_path}/nope: no such folder; ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["rnu"], ["run"], ["run", "--study"], ["run", "--study", "x", "--trials", "many"], ["compare"]],
    ids=str,
)
def test_wrong_usage_ends_with_2_and_names_the_argument(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.endswith("--help\n") and message.count("\n") == 1


def test_studies_lists_the_shipped_ones_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    from search.study import shipped_specs

    assert main(["studies"]) == 0
    text = capsys.readouterr().out
    for spec in shipped_specs():
        assert re.search(rf"^{re.escape(spec.name)} +\S", text, re.MULTILINE)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("run", "compare", "export-best", "studies"):
        assert re.search(rf"^    {command}\s+\w", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["run", "compare", "export-best"])
def test_help_explains_each_flag_with_its_default_and_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert re.search(rf"example:\n  python -m search {command} --(study|studies) kbnet", text)
    assert "None" not in text
    assert "SUPPRESS" not in text
    flags = re.findall(r"^  (--[a-z-]+)( [A-Z|]+)? +(.*(?:\n {10,}.*)*)", text, re.MULTILINE)
    assert len(flags) >= 4
    for flag, value, words in flags:
        # Folder names and switches explain themselves; what takes a value and may be left out has a default.
        if value and flag not in ("--study", "--studies"):
            assert "(default: " in words, flag


def test_version_says_how_the_operator_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--version"], ["--version", "-v"], ["-v", "--version"]):
        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"restune \d+\.\d+\.\d+", lines[0])
        assert any(line.startswith("operator: cpu: ") for line in lines) == ("-v" in flags)


@pytest.mark.parametrize("command", ["run", "export-best", "worker", "plan", "trials", "status", "dashboard"])
@pytest.mark.parametrize("given", [["kbnet"], ["--study", "kbnet"], ["--study=kbnet"]])
def test_a_study_is_named_by_itself_or_by_its_flag(command: str, given: list[str]) -> None:
    assert parse([command, *given, "--ou", "elsewhere"]).study == "kbnet"  # a beginning is enough


def test_what_does_not_fit_together_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, found in (
        (["run"], "one of the arguments STUDY --study is required"),
        (["-v", "run", "kbnet"], "-v goes with --version"),
        (["trials", "kbnet", "--study", "kbnet"], "argument --study: not allowed with argument STUDY"),
        (["run", "--study", "kbnet", "--bugdet", "3m"], "unknown flag --bugdet; did you mean --budget?"),
        (["run", "kbnet", "--bugdet=3m"], "unknown flag --bugdet; did you mean --budget?"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert found in capsys.readouterr().err
