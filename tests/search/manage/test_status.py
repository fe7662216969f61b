"""`status`: what a database says of studies that are worked on, and of those that are not."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.__main__ import main
from search.database import default_storage_url, open_database, record_study, this_process
from search.manage import study_status
from search.manage.status import RUNNING, STATES, Best

Add = Callable[..., int]


@pytest.fixture
def study(out: Path) -> optuna.Study:
    database = open_database(default_storage_url(out), create=True)
    made = optuna.create_study(study_name="kbnet", storage=database, direction="maximize")
    record_study(made, recipe={})
    return made


@pytest.fixture
def add(study: optuna.Study) -> Add:
    """Makes a trial in the database; its number."""

    def make(state: TrialState, value: float | None = None, scores: Any = None, **facts: Any) -> int:
        trial = create_trial(state=state, value=value, intermediate_values=scores, user_attrs=facts)
        trial_id = study._storage.create_new_trial(study._study_id, template_trial=trial)
        return study._storage.get_trial(trial_id).number

    return make


def owner(name: str, **changes: Any) -> dict[str, Any]:
    """A worker that is this very process."""
    return {**this_process(), "worker": name, "name": name, **changes}


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_states_are_told_apart(study: optuna.Study, add: Add, gone: int) -> None:
    add(TrialState.COMPLETE, 24.0, {25: 23.0, 100: 24.0}, goal=100)
    add(TrialState.PRUNED, None, {25: 20.0}, goal=25)
    add(TrialState.FAIL, goal=25)
    add(TrialState.RUNNING, goal=25, owner=owner("a"))
    add(TrialState.RUNNING, goal=25, owner=owner("b", pid=gone))
    add(TrialState.WAITING, None, {25: 21.0}, goal=25)
    add(TrialState.WAITING, None, {25: 22.0}, goal=100)
    add(TrialState.WAITING, label="by hand")
    assert study_status(study).trials == dict.fromkeys(STATES, 1)


def test_worker_is_shown_with_its_trial_its_goal_and_its_sign_of_life(study: optuna.Study, add: Add) -> None:
    beat = {"count": 3, "at": time.time() - 70, "step": 30, "steps": 120}
    number = add(TrialState.RUNNING, owner=owner("host:7"), goal=50, beat=beat, label="by hand")
    (worker,) = study_status(study).workers
    assert (worker.worker, worker.trial, worker.label, worker.goal) == ("host:7", number, "by hand", 50)
    assert worker.percent == 25.0
    assert worker.silent_seconds == pytest.approx(70, abs=5)


def test_worker_of_another_machine_counts_until_someone_takes_it_for_dead(
    study: optuna.Study, add: Add
) -> None:
    add(TrialState.RUNNING, owner=owner("far", host="another"))
    assert study_status(study).trials == {RUNNING: 1}


def test_speed_and_time_left_are_of_the_sitting_that_goes_on(study: optuna.Study, add: Add) -> None:
    sitting = {"started": time.time() - 1800, "timeout": 3600.0, "workers": 1, "input_psnr_db": 17.5}
    study.set_user_attr("sitting", sitting)
    for score in (20.0, 22.0, 21.0):
        add(TrialState.WAITING, None, {2: score}, goal=2)
    idle = study_status(study)
    assert (idle.begun_per_hour, idle.seconds_left) == (None, None)
    assert idle.best == Best(trial=1, psnr_db=22.0, percent=2, gain_db=4.5)
    add(TrialState.RUNNING, owner=owner("a"))
    add(TrialState.WAITING)
    busy = study_status(study)
    began = sum(trial.datetime_start is not None for trial in study.trials)
    assert busy.begun_per_hour == pytest.approx(2 * began, rel=0.01)
    assert busy.seconds_left == pytest.approx(1800, abs=5)


def test_complete_trial_is_best_though_another_scored_more_on_the_way(study: optuna.Study, add: Add) -> None:
    add(TrialState.WAITING, None, {25: 25.0}, goal=25)
    add(TrialState.COMPLETE, 24.0, {100: 24.0}, goal=100)
    add(TrialState.COMPLETE, 24.0, {100: 24.0}, goal=100)
    assert study_status(study).best == Best(trial=1, psnr_db=24.0, percent=100, gain_db=None)


def test_command_prints_one_study_or_all(
    study: optuna.Study, add: Add, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(TrialState.COMPLETE, 24.0, {100: 24.0}, goal=100)
    add(TrialState.RUNNING, owner=owner("host:7"), goal=25)
    optuna.create_study(study_name="empty", storage=study._storage, direction="maximize")
    assert main(["status", "kbnet", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "best 24.00 dB, trial 0 trained to its end" in text
    assert "2 trials: 1 running, 1 complete" in text
    assert "host:7" in text
    assert main(["status", "--out", str(out)]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kbnet", "1", "-", "-", "1", "-", "-", "24.00", "dB", "-"] in words
    assert ["empty", *"--------"] in words


def test_json_says_the_same(
    study: optuna.Study, add: Add, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(TrialState.RUNNING, owner=owner("a"), beat={"count": 1, "at": time.time(), "step": 1, "steps": 3})
    assert main(["status", "kbnet", "--json", "-", "--out", str(out)]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    assert main(["status", "--json", str(tmp_path / "status.json"), "--out", str(out)]) == 0
    (written,) = json.loads((tmp_path / "status.json").read_text())
    assert printed["study"] == written["study"] == "kbnet"
    assert printed["trials"] == {"running": 1}
    assert printed["workers"][0]["percent"] == 33.33


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    def run(*arguments: str) -> str:
        assert main(["status", *arguments]) == 2
        return capsys.readouterr().err

    return run


def test_what_is_not_there_is_said_in_a_line(
    study: optuna.Study, out: Path, refused: Callable[..., str]
) -> None:
    assert "no study 'kbet'; did you mean kbnet?" in refused("kbet", "--out", str(out))
    assert "no such database" in refused("--out", str(out / "elsewhere"))
    assert "--watch needs a terminal" in refused("--watch", "--out", str(out))
