"""Stopping the workers of a study: each saves its trial, hands it back and ends; waiting until they have."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search.database import (
    LEASE_TIMEOUT_S,
    FrozenTrial,
    LeaseMonitor,
    Study,
    TrialState,
    facts_of,
    has_begun,
    process_has_ended,
    release_abandoned_trial,
    request_stop,
    this_process,
)
from search.manage.status import RUNNING, state_of
from search.text import clock

LOOK_EVERY_S = 0.5
# Between two trials a worker holds none: nobody is there when none is held for so long.
BETWEEN_TRIALS_S = 2.0


@dataclass(frozen=True)
class StopResult:
    """Names of the workers that were asked to stop, and of those that did not stop in time."""

    asked: tuple[str, ...]
    not_stopped: tuple[str, ...]


def stop_workers(study: Study, wait_seconds: float, say: Callable[[str], None]) -> StopResult:
    """Ask all workers of a study to stop, and wait until they have or the time is over.

    A worker has ended when it holds no trial and, if it was a process of this machine, is gone. One that
    sends no heartbeat for `LEASE_TIMEOUT_S` is dead, and its trial is released. `say` gets the state of each trial.
    """
    seen: dict[str, FrozenTrial] = {}
    monitor = LeaseMonitor()
    silent = _release_abandoned(study, monitor)
    there = workers_at_work(study)
    request_stop(study)
    began = time.monotonic()
    while True:
        for worker, trial in there.items():
            if worker not in seen:
                say(f"asked {_name(trial)}, at work on trial {trial.number}")
            seen[worker] = trial
        not_stopped = [w for w in seen if w in there or _is_seen_alive(facts_of(seen[w]).owner)]
        waited = time.monotonic() - began
        longest = wait_seconds if seen else min(wait_seconds, BETWEEN_TRIALS_S)
        if (seen and not not_stopped) or waited >= longest:
            break
        time.sleep(min(LOOK_EVERY_S, longest - waited))
        silent |= _release_abandoned(study, monitor)
        there = workers_at_work(study)
    for worker, trial in seen.items():
        if worker in silent:
            say(
                f"{_name(trial)} gave no sign of life, and is taken for dead; {_trial_after_stop(study, trial)}"
            )
        elif worker not in not_stopped:
            say(f"{_name(trial)} has ended; {_trial_after_stop(study, trial)}")
        elif worker in there:
            say(f"{_name(trial)} still works on trial {trial.number}{_silence_note(trial)}")
        else:
            say(
                f"{_name(trial)} has not ended yet, but has let go of its trial: {_trial_after_stop(study, trial)}"
            )
    return StopResult(
        asked=tuple(_name(trial) for trial in seen.values()),
        not_stopped=tuple(_name(seen[worker]) for worker in not_stopped),
    )


def _release_abandoned(study: Study, monitor: LeaseMonitor) -> set[str]:
    """Put the trials of dead workers back in the queue; these workers."""
    dead = monitor.abandoned_trials(study)
    for trial in dead:
        release_abandoned_trial(study, trial)
    return {owner["worker"] for trial in dead if (owner := facts_of(trial).owner)}


def workers_at_work(study: Study) -> dict[str, FrozenTrial]:
    """The trials that are worked on, by worker; workers of other machines count until someone takes them for dead."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {facts_of(t).owner["worker"]: t for t in running if state_of(t) == RUNNING}


def _is_seen_alive(owner: Mapping[str, Any]) -> bool:
    """True if a worker is a running process of this machine."""
    here = this_process()
    return (owner["host"], owner["boot"]) == (here["host"], here["boot"]) and not process_has_ended(owner)


def _name(trial: FrozenTrial) -> str:
    return str(facts_of(trial).owner["name"])


def _trial_after_stop(study: Study, held: FrozenTrial) -> str:
    """The state of a trial after its worker ended, in words."""
    trial = study.get_trials(deepcopy=False)[held.number]
    if trial.state == TrialState.COMPLETE:
        return f"trial {trial.number} is complete, {trial.value:.2f} dB"
    if trial.state.is_finished() or not has_begun(trial):
        return f"trial {trial.number} is {state_of(trial)}"
    facts = facts_of(trial)
    return f"trial {trial.number} is kept at step {facts.steps_done} of {facts.steps}"


def _silence_note(trial: FrozenTrial) -> str:
    """A word on workers that may be dead, as far as clocks agree."""
    silent = time.time() - facts_of(trial).beat.get("at", time.time())
    if silent < LEASE_TIMEOUT_S:
        return ""
    return f"; its last sign of life was {clock(silent)} ago"
