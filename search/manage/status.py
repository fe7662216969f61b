"""Status of studies: their trials by state, workers and their trials, the best score, speed and time left."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.database import (
    COMPLETE,
    FAILED,
    PRUNED,
    FrozenTrial,
    Study,
    TrialState,
    facts_of,
    is_under_way,
    process_has_ended,
    study_facts_of,
    why_not_ours,
)
from search.scheduler import TOP
from search.text import clock

RUNNING, LEFT_BEHIND, INTERRUPTED = "running", "left behind", "interrupted"
AT_RUNG, NEW = "waiting at a rung", "waiting to begin"
# In the order of a trial's life.
STATES = (
    RUNNING,
    LEFT_BEHIND,
    INTERRUPTED,
    AT_RUNG,
    NEW,
    COMPLETE,
    PRUNED,
    FAILED,
)
_OF_OTHERS = {
    TrialState.RUNNING: RUNNING,
    TrialState.WAITING: NEW,
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
}
_FINISHED = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
}


@dataclass(frozen=True)
class AtWork:
    """A worker and its trial, by the trial's last heartbeat."""

    worker: str
    trial: int
    label: str | None
    goal: int | None
    """The rung that it trains up to, in percent of a whole training."""
    step: int
    steps: int
    silent_seconds: float | None
    """Time since the last heartbeat, by this machine's clock; None before the first."""

    @property
    def percent(self) -> float:
        """Progress of the trial in percent of a whole training."""
        return TOP * self.step / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class Best:
    """The best score so far: of complete trials, or else on the way."""

    trial: int
    psnr_db: float
    percent: int
    """The rung of the score; 100 is the end."""
    gain_db: float | None
    """Over the images as they are, if the study says what these score."""


@dataclass(frozen=True)
class StudyStatus:
    """One study."""

    study: str
    trials: dict[str, int]
    """The number of trials in each state; only states that occur."""
    workers: tuple[AtWork, ...] = ()
    best: Best | None = None
    begun_per_hour: float | None = None
    """Trials that began in the run that is under way, per hour."""
    seconds_left: float | None = None
    """Time left of the run that is under way."""
    timeout: float | None = field(default=None)
    note: str | None = None
    """Why nothing but its trials is shown: it is not of this program, or of a newer version."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for programs."""
        workers = [{**asdict(worker), "percent": round(worker.percent, 2)} for worker in self.workers]
        return {**asdict(self), "workers": workers}


def study_status(study: Study) -> StudyStatus:
    trials = study.get_trials(deepcopy=False)
    if note := why_not_ours(study):
        found = Counter(_OF_OTHERS[trial.state] for trial in trials)
        return StudyStatus(
            study.study_name, {state: found[state] for state in STATES if found[state]}, note=note
        )
    latest = study_facts_of(study).latest_run
    states = [state_of(trial) for trial in trials]
    counted = Counter(states)
    workers = tuple(_at_work(t) for t, state in zip(trials, states, strict=True) if state == RUNNING)
    run = latest if workers else None
    elapsed = time.time() - run["started"] if run else 0.0
    begun = sum(_began_after(trial, run["started"]) for trial in trials) if run else 0
    return StudyStatus(
        study=study.study_name,
        trials={state: counted[state] for state in STATES if counted[state]},
        workers=workers,
        best=_best(trials, latest.get("input_psnr_db")),
        begun_per_hour=begun / elapsed * 3600 if elapsed > 0 else None,
        seconds_left=max(run["timeout"] - elapsed, 0.0) if run else None,
        timeout=run["timeout"] if run else None,
    )


def state_of(trial: FrozenTrial) -> str:
    """The state of a trial as people see it, one of `STATES`."""
    if trial.state == TrialState.RUNNING:
        owner = facts_of(trial).owner
        return LEFT_BEHIND if not owner or process_has_ended(owner) else RUNNING
    if trial.state == TrialState.WAITING:
        if is_under_way(trial):
            return INTERRUPTED
        return NEW if facts_of(trial).goal is None else AT_RUNG
    return _FINISHED[trial.state]


def status_table(statuses: Sequence[StudyStatus]) -> RenderableType:
    """One study in detail, or several as a table; then the workers."""
    parts: list[RenderableType] = []
    if len(statuses) == 1:
        parts += _lines(statuses[0])
    else:
        parts.append(_overview(statuses))
        parts += [Text(f"{one.study}: {one.note}") for one in statuses if one.note]
    if any(status.workers for status in statuses):
        parts += [Text(), _workers(statuses)]
    return Group(*parts)


def show_status(statuses: Sequence[StudyStatus], console: Console) -> None:
    if not console.is_terminal:
        console.width = 200  # for whoever searches in it, a line each
    console.print(status_table(statuses))


def _lines(status: StudyStatus) -> list[RenderableType]:
    total = sum(status.trials.values())
    states = ", ".join(f"{count} {state}" for state, count in status.trials.items())
    lines = [
        f"{status.study}: {status.note or _best_in_words(status.best)}",
        f"{total} trial{'s' * (total != 1)}" + (f": {states}" if states else ""),
    ]
    if status.seconds_left is not None and status.timeout is not None:
        speed = f"{status.begun_per_hour:.0f} trials begun an hour, " if status.begun_per_hour else ""
        lines.append(f"{speed}{clock(status.seconds_left)} of {clock(status.timeout)} left")
    if not status.workers and status.note is None:
        lines.append("nobody is at work")
    if left := status.trials.get(LEFT_BEHIND):
        lines.append(f"{left} left behind by workers that died: the next run goes on with them")
    return [Text(line) for line in lines]


def _overview(statuses: Sequence[StudyStatus]) -> Table:
    table = _table("study", "running", "at rung", "new", "done", "pruned", "failed", "best", "left")
    for status in statuses:
        count = status.trials.get
        waiting = count(AT_RUNG, 0) + count(INTERRUPTED, 0) + count(LEFT_BEHIND, 0)
        counts = (
            count(RUNNING, 0),
            waiting,
            count(NEW, 0),
            count(COMPLETE, 0),
            count(PRUNED, 0),
            count(FAILED, 0),
        )
        table.add_row(
            Text(status.study),
            *(str(number) if number else "-" for number in counts),
            f"{status.best.psnr_db:.2f} dB" if status.best else "-",
            clock(status.seconds_left) if status.seconds_left is not None else "-",
            style=None if status.workers else "dim",
        )
    return table


def _workers(statuses: Sequence[StudyStatus]) -> Table:
    several = len(statuses) > 1
    table = _table(*(["study"] if several else []), "worker", "trial", "trained", "climbs to", "last sign")
    for status in statuses:
        for at_work in status.workers:
            name = f"{at_work.trial} ({at_work.label})" if at_work.label else str(at_work.trial)
            table.add_row(
                *([Text(status.study)] if several else []),
                Text(at_work.worker),
                Text(name),
                f"{at_work.percent:.1f} %",
                "-" if at_work.goal is None else "the end" if at_work.goal == TOP else f"{at_work.goal} %",
                _ago(at_work.silent_seconds),
            )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        words = heading in ("study", "worker", "trial")
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "none yet"
    return f"{clock(seconds)} ago" if seconds >= 60 else f"{seconds:.0f} s ago"


def _best_in_words(best: Best | None) -> str:
    if best is None:
        return "no score yet"
    gain = f" ({best.gain_db:+.2f} over the input)" if best.gain_db is not None else ""
    where = "trained to its end" if best.percent == TOP else f"at {best.percent} %"
    return f"best {best.psnr_db:.2f} dB{gain}, trial {best.trial} {where}"


def _at_work(trial: FrozenTrial) -> AtWork:
    facts = facts_of(trial)
    owner, beat = facts.owner, facts.beat
    return AtWork(
        worker=owner["name"],
        trial=trial.number,
        label=facts.label,
        goal=facts.goal,
        step=beat.get("step", 0),
        steps=beat.get("steps", 0),
        silent_seconds=max(time.time() - beat["at"], 0.0) if beat else None,
    )


def _began_after(trial: FrozenTrial, started: float) -> bool:
    """By the clock of the worker that wrote it, which is exact enough for a speed."""
    begun: datetime | None = trial.datetime_start
    return begun is not None and begun.timestamp() >= started


def _best(trials: Sequence[FrozenTrial], input_psnr_db: float | None) -> Best | None:
    scores = [(trial.value, trial, TOP) for trial in trials if trial.state == TrialState.COMPLETE]
    if not scores:
        scores = [
            (score, trial, percent)
            for trial in trials
            for percent, score in trial.intermediate_values.items()
        ]
    known = [(score, -trial.number, percent) for score, trial, percent in scores if score is not None]
    if not known:
        return None
    psnr_db, negative, percent = max(known)
    gain = None if input_psnr_db is None else psnr_db - input_psnr_db
    return Best(-negative, psnr_db, percent, gain)
