"""`delete`: what would go is said first, and then all of that goes and nothing else."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.__main__ import main
from search.database import (
    attach_picture,
    default_storage_url,
    list_studies,
    open_database,
    record_study,
    this_process,
)
from search.errors import UserError
from search.manage import delete, delete_study, study_contents

WHAT = """\
kbnet: 2 trials, the best at 24.00 dB (trial 1)
{out}/kbnet: 3 files, 1.2 MB, with export
{out}/artifacts: 2 pictures of its trials
"""


def made(name: str, out: Path) -> optuna.Study:
    """A study of two trials with three files of 1.2 MB in its folder, and two pictures."""
    database = open_database(default_storage_url(out), create=True)
    study = optuna.create_study(study_name=name, storage=database, direction="maximize")
    record_study(study, recipe={})
    picture = out / "strip.png"
    picture.write_bytes(b"picture")
    for value in (21.0, 24.0):
        trial = study.ask()
        attach_picture(trial, picture, out / "artifacts")
        study.tell(trial, value)
    for file, size in (("trial-0000/best.pt", 400), ("trial-0001/best.pt", 600), ("export/model.onnx", 200)):
        path = out / name / file
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000 * size))
    picture.unlink()
    return study


@pytest.fixture
def study(out: Path) -> optuna.Study:
    return made("kbnet", out)


@pytest.fixture
def worker(study: optuna.Study) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a trial of the study."""
    process = subprocess.Popen(["sleep", "60"])
    facts = {"owner": {**this_process(), "worker": "w", "name": "host:7", "pid": process.pid}}
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=facts))
    yield process
    process.kill()
    process.wait()


def files(folder: Path) -> set[str]:
    """All files but the database's own."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("search.db")
    }


def names(out: Path) -> list[str]:
    return [s.study_name for s in list_studies(open_database(default_storage_url(out), create=False))]


def test_all_of_a_study_goes_and_nothing_of_another(
    study: optuna.Study, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(out)
    made("nafnet", out)
    others = files(out) - before
    assert main(["delete", "kbnet", "--yes", "--out", str(out)]) == 0
    assert capsys.readouterr().out == WHAT.format(out=out) + "kbnet is deleted\n"
    assert files(out) == others
    assert len(others) == 5
    assert names(out) == ["nafnet"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("yess", 1)])
def test_person_is_asked(
    answer: str, code: int, study: optuna.Study, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(out)
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert main(["delete", "kbnet", "--out", str(out)]) == code
    assert (names(out), files(out)) == (([], set()) if code == 0 else (["kbnet"], before))


def test_without_a_terminal_it_must_be_said_beforehand(
    study: optuna.Study, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["delete", "kbnet", "--out", str(out)]) == 2
    found = capsys.readouterr()
    assert found.out == WHAT.format(out=out)
    assert "--yes deletes all of that" in found.err
    assert names(out) == ["kbnet"]


def test_study_that_is_worked_on_is_kept_until_its_worker_has_ended(
    study: optuna.Study, worker: subprocess.Popen[bytes], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["delete", "kbnet", "--yes", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        "search delete: host:7 is at work on kbnet; `python -m search stop kbnet` first\n"
    )
    worker.kill()
    worker.wait()
    assert main(["delete", "kbnet", "--yes", "--out", str(out)]) == 0


def test_worker_that_came_while_a_person_thought_keeps_the_study(
    study: optuna.Study, out: Path, request: pytest.FixtureRequest
) -> None:
    found = study_contents(study, out)
    request.getfixturevalue("worker")
    with pytest.raises(UserError, match="at work"):
        delete_study(study, found)


def test_files_stay_where_the_database_cannot_forget(
    study: optuna.Study, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(study: optuna.Study) -> None:
        raise OSError("disk full")

    before = files(out)
    monkeypatch.setattr(delete, "remove_study", fails)
    with pytest.raises(OSError, match="disk full"):
        delete_study(study, study_contents(study, out))
    assert files(out) == before


def test_what_an_interrupted_attempt_left_goes_with_the_next(study: optuna.Study, out: Path) -> None:
    (out / ".deleted-kbnet").mkdir()
    (out / ".deleted-kbnet" / "state.pt").touch()
    delete_study(study, study_contents(study, out))
    assert files(out) == set()


@pytest.mark.parametrize("name", ["..", "artifacts", "data", "../elsewhere"])
def test_folders_that_are_not_the_study_s_stay(name: str, out: Path) -> None:
    database = open_database(default_storage_url(out), create=True)
    study = optuna.create_study(study_name=name, storage=database, direction="maximize")
    record_study(study, recipe={})
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "mine.txt").touch()
    found = study_contents(study, out)
    assert found.folder is None
    delete_study(study, found)
    assert (out / name / "mine.txt").exists()


def test_link_goes_and_what_it_leads_to_stays(out: Path, tmp_path: Path) -> None:
    database = open_database(default_storage_url(out), create=True)
    study = optuna.create_study(study_name="far", storage=database, direction="maximize")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").touch()
    (out / "far").symlink_to(tmp_path / "elsewhere")
    found = study_contents(study, out)
    assert str(found).splitlines()[1] == f"{out}/far: a link; what it leads to stays"
    delete_study(study, found)
    assert not (out / "far").is_symlink()
    assert (tmp_path / "elsewhere" / "mine.txt").exists()
