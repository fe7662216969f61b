"""Leases: a trial is owned by one worker process, whose heartbeat shows that it is alive.

A worker records itself as the owner of its trial, and regularly increases a count: the heartbeat. Other processes
compare counts, never clocks: clocks of machines differ, and jump. A trial whose owner has ended or gives no heartbeat
is abandoned, and is released for other workers. A worker that finds another owner on its trial leaves it alone.
"""

import functools
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import optuna
import psutil

from search.database.queue import begin_if_room
from search.database.studies import FrozenTrial, Study, Trial, TrialState, change_trial
from search.database.study_facts import StudyFacts, record_study, study_facts_of
from search.database.transactions import Expected
from search.database.trial_facts import BEAT, OWNER, as_stored, facts_of
from search.errors import UserError

HEARTBEAT_INTERVAL_S = 5.0
LEASE_TIMEOUT_S = 60.0
"""Time without a heartbeat after which a worker counts as crashed."""
MAX_DEATHS = 4
"""A trial on which so many workers crashed at the same rung fails."""

SamplerForTrial = Callable[[int], optuna.samplers.BaseSampler]
"""Makes the sampler of a trial from its number."""


@functools.cache
def this_process() -> dict[str, Any]:
    """This process as owner of trials, as plain JSON."""
    host, pid = socket.gethostname(), os.getpid()
    return {
        "worker": uuid.uuid4().hex,
        "name": f"{host}:{pid}",
        "host": host,
        "boot": _boot(),
        "pid": pid,
        "parent": os.getppid(),
    }


def is_owned_by_this_process(trial: FrozenTrial) -> bool:
    """True if the trial is running and owned by this process."""
    worker = facts_of(trial).owner.get("worker")
    return trial.state == TrialState.RUNNING and bool(worker == this_process()["worker"])


def claim_trial(
    study: Study, waiting: FrozenTrial, sampler_for: SamplerForTrial, **facts: Any
) -> Trial | None:
    """Set a waiting trial to running, owned by this process; None if another process has claimed it first.

    `facts` are recorded in the same transaction. Number and settings of the trial stay.
    """
    if not _claim(study, waiting._trial_id, facts):
        return None
    study.sampler = sampler_for(waiting.number)
    return Trial(study, waiting._trial_id)


def begin_trial(study: Study, most: int, sampler_for: SamplerForTrial, **facts: Any) -> Trial | None:
    """A new running trial with `facts`, owned by this process; None if the study has `most` trials."""
    number = begin_if_room(study, most, as_stored(**facts, owner=this_process()))
    if number is None:
        return None
    study.sampler = sampler_for(number)
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def release_trial(
    study: Study, trial: Trial | FrozenTrial, owner: Mapping[str, Any] | None = None, **facts: Any
) -> bool:
    """Put a trial of this process, or of `owner`, back in the queue; False if it has another owner by now.

    `facts` are recorded with it. The trial keeps its number and settings and later continues from its saved state.
    """
    seen = Expected(TrialState.RUNNING, OWNER, this_process() if owner is None else owner)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        return change_trial(study, trial._trial_id, as_stored(**facts, owner={}), TrialState.WAITING, seen)
    return False


def release_abandoned_trial(study: Study, trial: FrozenTrial) -> bool:
    """Put an abandoned trial back in the queue; False if another process has done so."""
    return release_trial(study, trial, facts_of(trial).owner)


def _claim(study: Study, trial_id: int, facts: Mapping[str, Any]) -> bool:
    """Set a waiting trial to running with this process as owner."""
    seen = Expected(TrialState.WAITING, OWNER, {})
    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it has ended in the meantime
        claim = as_stored(**facts, owner=this_process())
        return change_trial(study, trial_id, claim, TrialState.RUNNING, seen)
    return False


class Heartbeat:
    """The heartbeat of this process for its trial; also notices a request to stop the study.

    As a context manager it beats every `HEARTBEAT_INTERVAL_S`, in a thread of its own.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.stop_requested = False
        self.lost = False
        """True once another worker owns the trial."""
        self.step, self.steps = 0, 0
        """Progress of the trial, written with each heartbeat."""
        self._trial_id: int | None = None
        self._lock = threading.Lock()
        self._count = 0
        self._stop_request_before = _stop_request(study)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_exit, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=HEARTBEAT_INTERVAL_S)

    def attach(self, trial: Trial) -> None:
        """Beat for this trial from now on; this process has claimed it."""
        self.step, self.steps, self.lost = 0, 0, False
        self._trial_id = trial._trial_id

    def detach(self) -> None:
        """Stop beating for the trial, so that other workers may claim it."""
        with self._lock:
            self._trial_id = None

    def beat_once(self) -> None:
        """Write one heartbeat, and check that this process still owns the trial."""
        with self._lock:
            self._beat_once()

    def _beat_once(self) -> None:
        if _stop_request(self.study) != self._stop_request_before:
            self.stop_requested = True
        trial_id = self._trial_id
        if trial_id is None:
            return
        database = self.study._storage
        trial = database.get_trial(trial_id)
        if trial.state == TrialState.WAITING and not facts_of(trial).owner:
            # Another process has released it as abandoned, and it is still free: claim it again.
            if not _claim(self.study, trial_id, {}):
                self.lost = self._trial_id == trial_id
            return
        if not is_owned_by_this_process(trial):
            self.lost = self._trial_id == trial_id
            return
        self._count += 1
        sign = {"count": self._count, "at": time.time(), "step": self.step, "steps": self.steps}
        database.set_trial_user_attr(trial_id, BEAT, sign)

    def _beat_until_exit(self) -> None:
        while not self._ended.wait(HEARTBEAT_INTERVAL_S):
            # The trial may end at this moment. If the database is unreachable, the worker itself reports it.
            with suppress(optuna.exceptions.OptunaError, UserError, KeyError):
                self.beat_once()


class LeaseMonitor:
    """Finds abandoned trials: their worker process on this machine has ended, or a remote one sends no heartbeat.

    While the `run` that started a worker is alive, it is left to that `run` to notice the end of the process, because
    it knows the exit code.
    """

    def __init__(self) -> None:
        self._signs: dict[int, tuple[Any, float]] = {}

    def abandoned_trials(self, study: Study) -> list[FrozenTrial]:
        """Running trials whose worker has crashed."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._signs = {t._trial_id: self._signs[t._trial_id] for t in running if t._trial_id in self._signs}
        run = study_facts_of(study).latest_run.get("owner") if running else None
        return [trial for trial in running if self._is_abandoned(trial, run)]

    def _is_abandoned(self, trial: FrozenTrial, run: Mapping[str, Any] | None) -> bool:
        facts = facts_of(trial)
        owner = facts.owner
        if not owner or (process_has_ended(owner) and not _is_supervised(owner, run)):
            return True
        sign = (owner["worker"], facts.beat.get("count"))
        last, since = self._signs.get(trial._trial_id, (None, 0.0))
        if sign != last:
            self._signs[trial._trial_id] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > LEASE_TIMEOUT_S


def record_worker_death(study: Study, trial: FrozenTrial, how: str) -> str | None:
    """Record the crash of a worker, and put its trial back in the queue: then None.

    If `MAX_DEATHS` workers have crashed at the same rung of the trial, it fails; the reason in words.
    """
    rung = max(trial.intermediate_values, default=0)
    facts = facts_of(trial)
    deaths, owner = [*facts.deaths, {"how": how, "rung": rung}], facts.owner
    if sum(death["rung"] == rung for death in deaths) < MAX_DEATHS:
        release_trial(study, trial, owner, deaths=deaths)
        return None
    why = f"was the end of {MAX_DEATHS} workers at {rung} % ({how})"
    seen = Expected(TrialState.RUNNING, OWNER, owner)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        ended = as_stored(deaths=deaths, ended=why)
        if change_trial(study, trial._trial_id, ended, TrialState.FAIL, seen):
            return why
    return None


def process_has_ended(owner: Mapping[str, Any]) -> bool:
    """True if the process was on this machine and has ended; False as well if that is not known."""
    if owner["host"] != socket.gethostname():
        return False
    if owner["boot"] != _boot():
        # A container may have the same host name. After a restart of this machine all its earlier processes have ended.
        return bool(owner["boot"].split("/")[1:] == _boot().split("/")[1:])
    try:
        return bool(psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _is_supervised(owner: Mapping[str, Any], run: Mapping[str, Any] | None) -> bool:
    """True if a `run` other than this process started this worker and is still alive."""
    if not run or run["worker"] == this_process()["worker"] or process_has_ended(run):
        return False
    return (run["host"], run["boot"], run["pid"]) == (owner["host"], owner["boot"], owner.get("parent"))


def name_of_active_run(study: Study) -> str | None:
    """Name of the `run` on this machine that searches a study, even if no trial is running; None if there is none."""
    owner = study_facts_of(study).latest_run.get("owner")
    if not owner or owner["host"] != socket.gethostname() or process_has_ended(owner):
        return None
    return str(owner["name"])


def request_stop(study: Study) -> None:
    """Ask all workers of a study, on all machines, to save their trials and end."""
    record_study(study, stop={"at": time.time(), "token": uuid.uuid4().hex})


def _stop_request(study: Study) -> Any:
    return StudyFacts(study._storage.get_study_user_attrs(study._study_id)).stop


@functools.cache
def _boot() -> str:
    """Identifies this start of this machine and the process table (containers have their own)."""
    boot_id, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot_id.exists():
        return f"{round(psutil.boot_time() / 60)}/"
    return f"{boot_id.read_text().strip()}/{processes.readlink()}"
