"""Leases of trials: claims, heartbeats, and trials of crashed workers."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.database import Study, Trial, TrialState, default_storage_url, leases, open_study
from search.database.queue import trial_view
from search.database.trial_facts import BEAT, DEATHS, OWNER, RETRY
from search.scheduler import LadderConfig
from search.scheduler.policy import next_queued
from search.study import StudySpec, load_spec

StudyFile = Callable[..., Path]


@pytest.fixture
def spec(study_file: StudyFile) -> StudySpec:
    return load_spec(str(study_file()))


@pytest.fixture
def opened(spec: StudySpec, tmp_path: Path) -> Study:
    return open_study(spec, default_storage_url(tmp_path), continue_with_changes=False, out=tmp_path)


def begun(opened: Study) -> optuna.Trial:
    """A trial that this process works on, its settings drawn."""
    trial = leases.begin_trial(opened, 99, lambda number: optuna.samplers.RandomSampler(seed=number))
    assert trial is not None
    trial.suggest_categorical("model.width", [4, 6])
    return trial


def owner_that_has_ended() -> dict[str, Any]:
    """The owner record of a process of this machine that has ended."""
    code = "import json; from search.database import leases; print(json.dumps(leases.this_process()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return dict(json.loads(run.stdout))


@pytest.fixture(scope="module")
def crashed_owner() -> dict[str, Any]:
    return owner_that_has_ended()


def test_waiting_trial_is_taken_once_with_its_settings(opened: Study) -> None:
    opened.enqueue_trial({"model.width": 6})
    (waiting,) = opened.get_trials()
    first, second = (
        leases.claim_trial(opened, waiting, lambda number: optuna.samplers.RandomSampler()) for _ in range(2)
    )
    assert first is not None
    assert first.suggest_categorical("model.width", [4, 6]) == 6
    assert second is None
    opened.tell(first, 20.0)
    assert leases.claim_trial(opened, waiting, lambda number: optuna.samplers.RandomSampler()) is None


def test_trial_of_a_crashed_process_goes_on_under_its_number_with_its_settings(
    opened: Study, crashed_owner: dict[str, Any]
) -> None:
    trials = [begun(opened) for _ in range(3)]
    trials[1].set_user_attr(OWNER, crashed_owner)
    settings = dict(trials[1].params)
    (found,) = leases.LeaseMonitor().abandoned_trials(opened)
    assert found.number == 1
    assert leases.release_abandoned_trial(opened, found)
    assert not leases.release_abandoned_trial(opened, found)  # another process saw it, too
    waiting = opened.trials[1]
    assert (waiting.state, waiting.params, waiting.user_attrs[OWNER]) == (
        TrialState.WAITING,
        settings,
        {},
    )
    again = leases.claim_trial(opened, waiting, lambda number: optuna.samplers.RandomSampler())
    assert again is not None
    assert (again.number, again.params) == (1, settings)
    assert leases.is_owned_by_this_process(opened.trials[1])


def test_process_of_an_earlier_start_of_the_machine_has_ended(
    opened: Study, crashed_owner: dict[str, Any]
) -> None:
    boot, processes = leases.this_process()["boot"].split("/", 1)
    begun(opened).set_user_attr(OWNER, {**leases.this_process(), "boot": f"{boot}x/{processes}"})
    # In another container of the same name its number says nothing.
    begun(opened).set_user_attr(OWNER, {**crashed_owner, "boot": f"{boot}/{processes}x"})
    assert [trial.number for trial in leases.LeaseMonitor().abandoned_trials(opened)] == [0]


def test_crash_of_a_worker_is_left_to_the_run_that_started_it(
    opened: Study, crashed_owner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = leases.this_process()
    begun(opened).set_user_attr(OWNER, crashed_owner)
    assert crashed_owner["parent"] == ours["pid"]
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])

    def found(run: dict[str, Any] | None, lease_monitor: leases.LeaseMonitor | None = None) -> int:
        opened.set_user_attr("sitting", {"owner": run})
        return len((lease_monitor or leases.LeaseMonitor()).abandoned_trials(opened))

    its_run = {**ours, "worker": "the run that started it"}
    assert found(its_run) == 0
    # The run itself sees it, and everybody does once the run is gone or was another one.
    assert (
        found(ours) == found(None) == found(crashed_owner) == found({**its_run, "pid": ours["parent"]}) == 1
    )
    # A run that does nothing about it is not waited for.
    lease_monitor = leases.LeaseMonitor()
    assert found(its_run, lease_monitor) == 0
    now[0] += leases.LEASE_TIMEOUT_S + 1
    assert found(its_run, lease_monitor) == 1


@pytest.mark.parametrize("where", ["elsewhere", "here, its number used again"])
def test_trial_of_a_worker_without_heartbeat_is_abandoned_after_a_while_and_of_a_beating_one_never(
    where: str, opened: Study, crashed_owner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (
        {**crashed_owner, "host": where}
        if where == "elsewhere"
        else {**leases.this_process(), "worker": "other"}
    )
    silent, beating = begun(opened), begun(opened)
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    lease_monitor = leases.LeaseMonitor()
    for count in range(5):
        for trial in (silent, beating):
            trial.set_user_attr(OWNER, other)
        # Clocks of other machines are off, and jump: only the count tells.
        beating.set_user_attr(BEAT, {"count": count, "at": 3600.0 - 900 * count})
        found = [trial.number for trial in lease_monitor.abandoned_trials(opened)]
        assert found == ([0] if count == 4 else []), count
        now[0] += leases.LEASE_TIMEOUT_S / 3.9


def test_running_trial_without_a_name_is_nobodys(opened: Study) -> None:
    begun(opened).set_user_attr(OWNER, {})
    begun(opened)
    assert [trial.number for trial in leases.LeaseMonitor().abandoned_trials(opened)] == [0]


def test_pulse_gives_signs_of_life_only_for_the_trial_that_is_held(
    opened: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_INTERVAL_S", 0.01)
    held, other = begun(opened), begun(opened)
    with leases.Heartbeat(opened) as heartbeat:
        heartbeat.attach(held)
        heartbeat.step, heartbeat.steps = 3, 8
        deadline = time.monotonic() + 10
        while opened.trials[0].user_attrs.get(BEAT, {}).get("count", 0) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    sign = opened.trials[0].user_attrs[BEAT]
    assert (sign["step"], sign["steps"]) == (3, 8)
    assert BEAT not in opened.trials[other.number].user_attrs
    assert not heartbeat.lost


def test_worker_taken_for_crashed_leaves_its_trial_to_the_other(
    opened: Study, crashed_owner: dict[str, Any]
) -> None:
    trial = begun(opened)
    heartbeat = leases.Heartbeat(opened)
    heartbeat.attach(trial)
    leases.release_trial(opened, trial)
    heartbeat.beat_once()
    assert not heartbeat.lost  # nobody has come for it: it is ours again
    assert leases.is_owned_by_this_process(opened.trials[0])
    trial.set_user_attr(OWNER, crashed_owner)
    heartbeat.beat_once()
    assert heartbeat.lost


def test_request_to_stop_reaches_running_workers_and_not_later_ones(opened: Study) -> None:
    before = leases.Heartbeat(opened)
    before.beat_once()
    assert not before.stop_requested
    leases.request_stop(opened)
    before.beat_once()
    later = leases.Heartbeat(opened)
    later.beat_once()
    assert before.stop_requested
    assert not later.stop_requested


def test_trial_that_keeps_killing_its_workers_ends_as_failed(opened: Study) -> None:
    trial = begun(opened)
    for death in range(9):
        if death == 2:
            trial.report(20.0, 25)  # it got further: those before do not count
        why = leases.record_worker_death(opened, opened.trials[0], "SIGKILL")
        if opened.trials[0].state == TrialState.FAIL:
            break
        assert why is None
        assert leases.claim_trial(opened, opened.trials[0], lambda number: optuna.samplers.RandomSampler())
    assert opened.trials[0].state == TrialState.FAIL
    assert len(opened.trials[0].user_attrs[DEATHS]) == leases.MAX_DEATHS + 2
    assert opened.trials[0].user_attrs["ended"] == why == "was the end of 4 workers at 25 % (SIGKILL)"


def test_no_more_trials_begin_than_asked_for(opened: Study) -> None:
    for _ in range(3):
        opened.enqueue_trial({})
    leases.claim_trial(opened, opened.trials[0], lambda number: optuna.samplers.RandomSampler())
    opened.enqueue_trial({"model.width": 6}, user_attrs={RETRY: 0})
    waiting = [trial_view(trial, LadderConfig()) for trial in opened.trials]
    assert [next_queued(waiting, most) for most in (1, 2)] == [3, 1]

    def begun() -> Trial | None:
        return leases.begin_trial(opened, 4, lambda number: optuna.samplers.RandomSampler(), goal=25)

    fifth = begun()
    assert fifth is not None
    assert fifth.number == 4
    assert opened.trials[4].user_attrs == {"goal": 25, OWNER: leases.this_process()}
    assert leases.is_owned_by_this_process(opened.trials[4])
    assert begun() is None
    assert len(opened.trials) == 5
