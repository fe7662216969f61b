"""`stop`: workers are asked through the database, and waited for."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState, create_trial

from search.__main__ import main
from search.database import (
    default_storage_url,
    leases,
    list_studies,
    load_study,
    open_database,
    record_study,
    study_facts_of,
)
from search.launch import run_in_process
from search.manage import stop
from search.study import load_spec
from search.worker import RunOptions

Worker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def study(out: Path) -> optuna.Study:
    database = open_database(default_storage_url(out), create=True)
    made = optuna.create_study(study_name="kbnet", storage=database, direction="maximize")
    record_study(made, recipe={})
    return made


def running(study: optuna.Study, **owner: Any) -> int:
    """A trial that someone works on; its id in the database."""
    facts = {"owner": {**leases.this_process(), **owner}, "goal": 25, "steps": 90, "steps_done": 30}
    trial = create_trial(state=TrialState.RUNNING, user_attrs=facts)
    return study._storage.create_new_trial(study._study_id, template_trial=trial)


@pytest.fixture
def worker(study: optuna.Study) -> Iterator[Worker]:
    """Starts a process that holds a trial and, once it is asked to stop, hands it back and ends."""
    made: list[tuple[subprocess.Popen[bytes], threading.Thread]] = []
    ended = threading.Event()

    def start(name: str, *, listens: bool = True) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        trial_id = running(study, worker=name, name=name, pid=process.pid)

        def listen() -> None:
            while not ended.wait(0.05):
                if study_facts_of(study).stop is not None:
                    ended.wait(0.2)
                    leases.release_abandoned_trial(study, study._storage.get_trial(trial_id))
                    ended.wait(0.2)
                    process.kill()
                    return

        thread = threading.Thread(target=listen if listens else lambda: None)
        thread.start()
        made.append((process, thread))
        return process

    yield start
    ended.set()
    for process, thread in made:
        thread.join()
        process.kill()
        process.wait()


def test_all_workers_are_asked_and_waited_for(study: optuna.Study, worker: Worker) -> None:
    processes, lines = [worker("a"), worker("b")], list[str]()
    result = stop.stop_workers(study, 10, lines.append)
    assert result == stop.StopResult(asked=("a", "b"), not_stopped=())
    assert all(process.wait(0.1) == -9 for process in processes)
    assert lines[:2] == ["asked a, at work on trial 0", "asked b, at work on trial 1"]
    assert lines[2:] == [
        "a has ended; trial 0 is kept at step 30 of 90",
        "b has ended; trial 1 is kept at step 30 of 90",
    ]


def test_worker_that_does_not_listen_is_named(
    study: optuna.Study, worker: Worker, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker("deaf", listens=False)
    worker("a")
    assert main(["stop", "kbnet", "--wait", "1s", "--out", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "deaf still works on trial 0" in lines
    assert "a has ended; trial 1 is kept at step 30 of 90" in lines


def test_silence_of_a_worker_elsewhere_is_mentioned(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    trial_id = running(study, worker="far", name="far", host="another")
    beat = {"count": 3, "at": now - 130, "step": 1, "steps": 2}
    study._storage.set_trial_user_attr(trial_id, "beat", beat)
    lines: list[str] = []
    assert stop.stop_workers(study, 0, lines.append).not_stopped == ("far",)
    assert lines[1] == "far still works on trial 0; its last sign of life was 2:10 ago"


def test_trial_of_a_worker_that_is_silent_for_long_is_handed_back(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_TIMEOUT_S", 0.2)
    running(study, worker="far", name="far", host="another")
    lines: list[str] = []
    assert stop.stop_workers(study, 5, lines.append) == stop.StopResult(asked=("far",), not_stopped=())
    assert lines[1] == "far gave no sign of life, and is taken for dead; trial 0 is kept at step 30 of 90"
    assert study.trials[0].state == TrialState.WAITING


def test_nobody_at_work_is_said_soon(
    study: optuna.Study, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stop, "BETWEEN_TRIALS_S", 0.1)
    started = time.monotonic()
    assert main(["stop", "kbnet", "--out", str(out)]) == 0
    assert time.monotonic() - started < 20
    assert capsys.readouterr().out == "nobody is at work on kbnet\n"


def test_worker_between_two_trials_is_found(
    study: optuna.Study, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "BETWEEN_TRIALS_S", 30.0)
    late = threading.Timer(0.6, worker, ["late"])
    late.start()
    assert stop.stop_workers(study, 60, lambda line: None) == stop.StopResult(asked=("late",), not_stopped=())


def test_real_search_saves_and_ends(
    study_file: Callable[..., Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_INTERVAL_S", 0.1)
    database, codes = open_database(default_storage_url(out), create=True), list[int]()

    def ask() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not any(
            trial.user_attrs.get("beat") for study in list_studies(database) for trial in study.trials
        ):
            time.sleep(0.1)
        codes.append(main(["stop", "tiny", "--wait", "0", "--out", str(out)]))

    asking = threading.Thread(target=ask)
    asking.start()
    spec = load_spec(str(study_file(("steps = 8", "steps = 100000"))))
    how = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    assert run_in_process(spec, how).stopped
    asking.join()
    assert codes == [1]  # it was asked, and not waited for
    (trial,) = load_study("tiny", default_storage_url(out)).trials
    assert trial.state == TrialState.WAITING
    assert trial.user_attrs["steps_done"] > 0
