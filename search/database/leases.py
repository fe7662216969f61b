"""Which process works on which trial, whether it is still alive, and what becomes of the work of the dead.

A worker writes its name on the trial that it works on, and a count that grows: its sign of life. Who looks
compares counts, never clocks: clocks of machines differ, and jump. A worker whose name is no longer on its
trial has been taken for dead, and leaves it to the other.
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

BEAT_EVERY_S = 5.0
SILENT_S = 60.0
"""A worker that gave no sign for so long is dead."""
MOST_DEATHS = 4
"""A trial that was the end of so many workers at the same rung is not tried again."""

Sampling = Callable[[int], optuna.samplers.BaseSampler]
"""How a trial of that number draws its settings."""


@functools.cache
def this_process() -> dict[str, Any]:
    """The owner of all trials that this process works on, as plain JSON."""
    host, pid = socket.gethostname(), os.getpid()
    return {
        "worker": uuid.uuid4().hex,
        "name": f"{host}:{pid}",
        "host": host,
        "boot": _boot(),
        "pid": pid,
        "parent": os.getppid(),
    }


def is_ours(trial: FrozenTrial) -> bool:
    """Whether this process is the one to work on a running trial."""
    worker = facts_of(trial).owner.get("worker")
    return trial.state == TrialState.RUNNING and bool(worker == this_process()["worker"])


def claim_trial(study: Study, waiting: FrozenTrial, sampling: Sampling, **facts: Any) -> Trial | None:
    """Set a waiting trial running; None if another process was faster. It keeps number and settings.

    `facts` are noted as attributes, in the same transaction.
    """
    if not _claim(study, waiting._trial_id, facts):
        return None
    study.sampler = sampling(waiting.number)
    return Trial(study, waiting._trial_id)


def begin_trial(study: Study, most: int, sampling: Sampling, **facts: Any) -> Trial | None:
    """A new trial, running, with `facts` as attributes; None if the study has `most` of them."""
    number = begin_if_room(study, most, as_stored(**facts, owner=this_process()))
    if number is None:
        return None
    study.sampler = sampling(number)
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def hand_back(
    study: Study, trial: Trial | FrozenTrial, owner: Mapping[str, Any] | None = None, **facts: Any
) -> bool:
    """Put our trial, or that of a dead `owner`, back in the queue; False if it is somebody else's by now.

    It keeps its number and settings, and goes on from its saved state; `facts` are noted as attributes.
    """
    seen = Expected(TrialState.RUNNING, OWNER, this_process() if owner is None else owner)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        return change_trial(study, trial._trial_id, as_stored(**facts, owner={}), TrialState.WAITING, seen)
    return False


def hand_back_dead(study: Study, trial: FrozenTrial) -> bool:
    """Hand back the trial of a worker that was found dead; False if another process has done so."""
    return hand_back(study, trial, facts_of(trial).owner)


def _claim(study: Study, trial_id: int, facts: Mapping[str, Any]) -> bool:
    """Write our name on a trial that waits, and set it running."""
    seen = Expected(TrialState.WAITING, OWNER, {})
    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it had come to its end since
        claim = as_stored(**facts, owner=this_process())
        return change_trial(study, trial_id, claim, TrialState.RUNNING, seen)
    return False


class Heartbeat:
    """Gives a sign of life for the trial that this process works on, and listens for a wish to stop.

    As a context manager it does so every `BEAT_EVERY_S`, from a thread of its own.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.stop_wished = False
        self.lost = False
        """Whether the trial has been given to another worker."""
        self.step, self.steps = 0, 0
        """How far the trial is, for whoever asks."""
        self._trial_id: int | None = None
        self._looking = threading.Lock()
        self._count = 0
        self._wish_before = _wish(study)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=BEAT_EVERY_S)

    def hold(self, trial: Trial) -> None:
        """This process has claimed a trial."""
        self.step, self.steps, self.lost = 0, 0, False
        self._trial_id = trial._trial_id

    def let_go(self) -> None:
        """From here on the trial is left alone: whoever sees it wait may have it."""
        with self._looking:
            self._trial_id = None

    def look(self) -> None:
        """Give one sign of life, and see whether the trial is still ours."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        if _wish(self.study) != self._wish_before:
            self.stop_wished = True
        trial_id = self._trial_id
        if trial_id is None:
            return
        database = self.study._storage
        trial = database.get_trial(trial_id)
        if trial.state == TrialState.WAITING and not facts_of(trial).owner:
            # Taken for dead, and nobody has come for it: it is ours again.
            if not _claim(self.study, trial_id, {}):
                self.lost = self._trial_id == trial_id
            return
        if not is_ours(trial):
            self.lost = self._trial_id == trial_id
            return
        self._count += 1
        sign = {"count": self._count, "at": time.time(), "step": self.step, "steps": self.steps}
        database.set_trial_user_attr(trial_id, BEAT, sign)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_EVERY_S):
            # A trial that ends at this moment is nobody's any more; a database that is away, the worker notices.
            with suppress(optuna.exceptions.OptunaError, UserError, KeyError):
                self.look()


class LeaseMonitor:
    """Finds trials whose worker is dead: of this machine by its process, elsewhere by its silence.

    Those of a worker whose `run` is there to see it end are left to that: it alone knows how it died.
    """

    def __init__(self) -> None:
        self._signs: dict[int, tuple[Any, float]] = {}

    def dead(self, study: Study) -> list[FrozenTrial]:
        """The running trials that nobody works on."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._signs = {t._trial_id: self._signs[t._trial_id] for t in running if t._trial_id in self._signs}
        run = study_facts_of(study).sitting.get("owner") if running else None
        return [trial for trial in running if self._is_dead(trial, run)]

    def _is_dead(self, trial: FrozenTrial, run: Mapping[str, Any] | None) -> bool:
        facts = facts_of(trial)
        owner = facts.owner
        if not owner or (process_is_gone(owner) and not _is_watched(owner, run)):
            return True
        sign = (owner["worker"], facts.beat.get("count"))
        last, since = self._signs.get(trial._trial_id, (None, 0.0))
        if sign != last:
            self._signs[trial._trial_id] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > SILENT_S


def record_death(study: Study, trial: FrozenTrial, how: str) -> str | None:
    """Put the trial of a worker that died back in the queue.

    Where it was the end of `MOST_DEATHS` workers that got no further, it ends as failed: then why, in words.
    """
    rung = max(trial.intermediate_values, default=0)
    facts = facts_of(trial)
    deaths, owner = [*facts.deaths, {"how": how, "rung": rung}], facts.owner
    if sum(death["rung"] == rung for death in deaths) < MOST_DEATHS:
        hand_back(study, trial, owner, deaths=deaths)
        return None
    why = f"was the end of {MOST_DEATHS} workers at {rung} % ({how})"
    seen = Expected(TrialState.RUNNING, OWNER, owner)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        ended = as_stored(deaths=deaths, ended=why)
        if change_trial(study, trial._trial_id, ended, TrialState.FAIL, seen):
            return why
    return None


def process_is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether a worker is known to have ended: its process was on this machine and is not there any more."""
    if owner["host"] != socket.gethostname():
        return False
    if owner["boot"] != _boot():
        # Another container may share our name; the same machine, started anew, has lost all its processes.
        return bool(owner["boot"].split("/")[1:] == _boot().split("/")[1:])
    try:
        return bool(psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _is_watched(owner: Mapping[str, Any], run: Mapping[str, Any] | None) -> bool:
    """Whether a `run` other than this process started this worker, and is there to see it end."""
    if not run or run["worker"] == this_process()["worker"] or process_is_gone(run):
        return False
    return (run["host"], run["boot"], run["pid"]) == (owner["host"], owner["boot"], owner.get("parent"))


def run_at_work(study: Study) -> str | None:
    """The name of the `run` of this machine that works on a study, even while none of its trials is held."""
    owner = study_facts_of(study).sitting.get("owner")
    if not owner or owner["host"] != socket.gethostname() or process_is_gone(owner):
        return None
    return str(owner["name"])


def request_stop(study: Study) -> None:
    """Ask all workers of a study, wherever they are, to save their work and end."""
    record_study(study, stop={"at": time.time(), "token": uuid.uuid4().hex})


def _wish(study: Study) -> Any:
    return StudyFacts(study._storage.get_study_user_attrs(study._study_id)).stop


@functools.cache
def _boot() -> str:
    """Which start of which machine this is, and which of its process tables (containers have their own)."""
    boot_id, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot_id.exists():
        return f"{round(psutil.boot_time() / 60)}/"
    return f"{boot_id.read_text().strip()}/{processes.readlink()}"
