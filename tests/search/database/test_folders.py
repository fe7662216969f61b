"""The folder of a study: safe for any name, its own, and kept when the study is renamed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.__main__ import main
from search.database import default_storage_url, load_study, open_study, record_study, study_folder
from search.database.folders import free_folder_name, safe_name
from search.errors import UserError
from search.study import StudySpec, load_spec

NAMES = [
    "문서 1",
    "a/b",
    "..",
    "../../etc",
    "/etc/passwd",
    "a\\b",
    "Ümläut",
    "क्षि",
    "x" * 200,
    "😀",
    ".hidden",
    "a:b*?",
    " ",
]


@pytest.fixture
def spec(study_file: Callable[..., Path]) -> StudySpec:
    return load_spec(str(study_file()))


def opened(spec: StudySpec, out: Path, name: str) -> optuna.Study:
    return open_study(
        spec.with_changes(name=name), default_storage_url(out), continue_with_changes=False, out=out
    )


@pytest.mark.parametrize("name", NAMES)
def test_folder_of_any_name_is_one_folder_inside(name: str, tmp_path: Path) -> None:
    folder = tmp_path / safe_name(name)
    assert folder.parent == tmp_path
    assert folder.resolve().parent == tmp_path.resolve()
    assert folder.name not in ("", ".", "..")
    folder.mkdir()


def test_names_that_look_alike_have_folders_of_their_own() -> None:
    names = ["a/b", "a b", "a_b", "a\\b", "a:b", "a?b", "문서 1", "문서/1"]
    assert len({safe_name(name).casefold() for name in names}) == len(names)


@pytest.mark.parametrize("name", ["kbnet", "my_pairs", "run.2-b", "A1"])
def test_name_that_a_folder_can_have_is_its_folder_as_ever(name: str, tmp_path: Path) -> None:
    assert free_folder_name(tmp_path, name, []) == name


@pytest.mark.parametrize("name", ["search.db", "search.db-wal", "artifacts", "data", "compare"])
def test_study_named_as_what_lies_beside_it_has_another_folder(
    name: str, spec: StudySpec, tmp_path: Path
) -> None:
    study = opened(spec, tmp_path, name)
    folder = study_folder(tmp_path, study)
    assert study.study_name == name
    assert folder.name == f"study-{name}"
    folder.mkdir()


def test_folder_of_others_is_never_taken(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "trial-0000").mkdir(parents=True)  # of a study in another database
    assert study_folder(tmp_path, opened(spec, tmp_path, "tiny")).name == "tiny-2"
    assert study_folder(tmp_path, opened(spec, tmp_path, "TINY")).name == "TINY"
    assert study_folder(tmp_path, opened(spec, tmp_path, "Tiny")).name == "Tiny-3"


def renamed(study: optuna.Study, name: str) -> optuna.Study:
    """As optuna-dashboard does it: a copy under the new name, the old one deleted."""
    copy = optuna.create_study(storage=study._storage, study_name=name, direction="maximize")
    copy.add_trials(study.get_trials(deepcopy=False))
    for key, value in study.user_attrs.items():
        copy.set_user_attr(key, value)
    optuna.delete_study(study_name=study.study_name, storage=study._storage)
    return copy


def test_renamed_study_keeps_its_folder_and_the_next_of_its_old_name_gets_another(
    spec: StudySpec, tmp_path: Path
) -> None:
    before = opened(spec, tmp_path, "tiny")
    record_study(before, spec=spec)
    copy = renamed(before, "../best so far")
    assert study_folder(tmp_path, copy) == tmp_path / "tiny"
    assert study_folder(tmp_path, opened(spec, tmp_path, "tiny")) == tmp_path / "tiny-2"
    assert study_folder(tmp_path, opened(spec, tmp_path, "../best so far")) == tmp_path / "tiny"


def test_study_from_before_folders_were_recorded_is_found_after_renaming(
    spec: StudySpec, tmp_path: Path
) -> None:
    before = opened(spec, tmp_path, "tiny")
    record_study(before, spec=spec, folder=None)
    assert study_folder(tmp_path, before) == tmp_path / "tiny"
    assert study_folder(tmp_path, renamed(before, "other")) == tmp_path / "tiny"


def test_copy_of_a_study_does_not_write_over_the_weights_of_the_first(
    spec: StudySpec, tmp_path: Path
) -> None:
    opened(spec, tmp_path, "tiny")
    url = default_storage_url(tmp_path)
    optuna.copy_study(from_study_name="tiny", from_storage=url, to_storage=url, to_study_name="copy")
    with pytest.raises(
        UserError, match=r"studies 'copy' and 'tiny' have the same folder .*tiny: one is a copy"
    ):
        opened(spec, tmp_path, "copy")


@pytest.mark.parametrize("evil", ["../outside", "/etc", "a/b", "..", ".", "", "a\\b", "a\0b"])
def test_recorded_folder_that_would_lead_elsewhere_is_not_believed(
    evil: str, spec: StudySpec, tmp_path: Path
) -> None:
    study = opened(spec, tmp_path, "tiny")
    record_study(study, folder=evil)
    assert study_folder(tmp_path, study) == tmp_path / "tiny"


def test_study_of_a_newer_version_is_said_to_be_so(
    spec: StudySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_study(opened(spec, tmp_path, "tiny"), format=99)
    with pytest.raises(
        UserError, match=r"written by a newer version of this program .format 99, this one reads"
    ):
        load_study("tiny", default_storage_url(tmp_path))
    with pytest.raises(UserError, match="newer version"):
        opened(spec, tmp_path, "tiny")
    assert main(["status", "--out", str(tmp_path)]) == 0
    assert "tiny: written by a newer version of this program" in capsys.readouterr().out


def test_studies_of_others_are_said_to_be_so_and_shown(
    spec: StudySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(spec, tmp_path, "tiny")
    url = default_storage_url(tmp_path)
    wide = optuna.create_study(study_name="wide", storage=url, directions=["minimize", "maximize"])
    other = optuna.create_study(study_name="\x1b[2Jother", storage=url)
    wide.tell(wide.ask(), [1.0, 2.0])
    wide.ask()
    other.tell(other.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 3.0)
    other.tell(other.ask(), state=optuna.trial.TrialState.PRUNED)
    places = ["--out", str(tmp_path)]
    assert main(["status", *places]) == 0
    shown = capsys.readouterr().out
    assert "wide: not a study of this program" in shown
    assert "\x1b" not in shown
    assert main(["status", "wide", *places]) == 0
    assert "1 running, 1 complete" in capsys.readouterr().out
    for name in ("wide", "\x1b[2Jother"):
        assert main(["trials", name, *places]) == 0
        said: Any = capsys.readouterr()
        assert "not a study of this program" in said.err
        assert "\x1b" not in said.out + said.err
        for command in ("export-best", "report", "stop", "pareto", "mattered"):
            assert main([command, name, *places]) == 2
            assert capsys.readouterr().err.count("\n") == 1
    assert wide.user_attrs == {}
