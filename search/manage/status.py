"""Where studies stand: their trials by state, who is at work on what, the best score, speed and time left."""

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
    process_is_gone,
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
    """A worker and its trial, as the trial's last sign of life tells."""

    worker: str
    trial: int
    label: str | None
    goal: int | None
    """The rung that it climbs to, in percent of a whole training."""
    step: int
    steps: int
    silent_seconds: float | None
    """Since the last sign of life, by this machine's clock; None before the first."""

    @property
    def percent(self) -> float:
        """How far the trial is, of a whole training."""
        return TOP * self.step / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class Best:
    """The best score so far: of complete trials, or else on the way."""

    trial: int
    psnr_db: float
    percent: int
    """Where it was scored; 100 is the end."""
    gain_db: float | None
    """Over the images as they are, if the study says what these score."""


@dataclass(frozen=True)
class StudyStatus:
    """One study."""

    study: str
    trials: dict[str, int]
    """How many are in which state; only states that occur."""
    workers: tuple[AtWork, ...] = ()
    best: Best | None = None
    begun_per_hour: float | None = None
    """Trials that began in the sitting that goes on."""
    seconds_left: float | None = None
    """Of the sitting that goes on."""
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
    latest = study_facts_of(study).sitting
    states = [state_of(trial) for trial in trials]
    counted = Counter(states)
    workers = tuple(_at_work(t) for t, state in zip(trials, states, strict=True) if state == RUNNING)
    sitting = latest if workers else None
    elapsed = time.time() - sitting["started"] if sitting else 0.0
    begun = sum(_began_after(trial, sitting["started"]) for trial in trials) if sitting else 0
    return StudyStatus(
        study=study.study_name,
        trials={state: counted[state] for state in STATES if counted[state]},
        workers=workers,
        best=_best(trials, latest.get("input_psnr_db")),
        begun_per_hour=begun / elapsed * 3600 if elapsed > 0 else None,
        seconds_left=max(sitting["timeout"] - elapsed, 0.0) if sitting else None,
        timeout=sitting["timeout"] if sitting else None,
    )


def state_of(trial: FrozenTrial) -> str:
    """The state of a trial as people see it, one of `STATES`."""
    if trial.state == TrialState.RUNNING:
        owner = facts_of(trial).owner
        return LEFT_BEHIND if not owner or process_is_gone(owner) else RUNNING
    if trial.state == TrialState.WAITING:
        if is_under_way(trial):
            return INTERRUPTED
        return NEW if facts_of(trial).goal is None else AT_RUNG
    return _FINISHED[trial.state]


def status_table(standings: Sequence[StudyStatus]) -> RenderableType:
    """One study at length, or several as a table; then who is at work."""
    parts: list[RenderableType] = []
    if len(standings) == 1:
        parts += _lines(standings[0])
    else:
        parts.append(_overview(standings))
        parts += [Text(f"{one.study}: {one.note}") for one in standings if one.note]
    if any(standing.workers for standing in standings):
        parts += [Text(), _workers(standings)]
    return Group(*parts)


def show_status(standings: Sequence[StudyStatus], console: Console) -> None:
    if not console.is_terminal:
        console.width = 200  # for whoever searches in it, a line each
    console.print(status_table(standings))


def _lines(standing: StudyStatus) -> list[RenderableType]:
    total = sum(standing.trials.values())
    states = ", ".join(f"{count} {state}" for state, count in standing.trials.items())
    lines = [
        f"{standing.study}: {standing.note or _best_in_words(standing.best)}",
        f"{total} trial{'s' * (total != 1)}" + (f": {states}" if states else ""),
    ]
    if standing.seconds_left is not None and standing.timeout is not None:
        speed = f"{standing.begun_per_hour:.0f} trials begun an hour, " if standing.begun_per_hour else ""
        lines.append(f"{speed}{clock(standing.seconds_left)} of {clock(standing.timeout)} left")
    if not standing.workers and standing.note is None:
        lines.append("nobody is at work")
    if left := standing.trials.get(LEFT_BEHIND):
        lines.append(f"{left} left behind by workers that died: the next run goes on with them")
    return [Text(line) for line in lines]


def _overview(standings: Sequence[StudyStatus]) -> Table:
    table = _table("study", "running", "at rung", "new", "done", "pruned", "failed", "best", "left")
    for standing in standings:
        count = standing.trials.get
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
            Text(standing.study),
            *(str(number) if number else "-" for number in counts),
            f"{standing.best.psnr_db:.2f} dB" if standing.best else "-",
            clock(standing.seconds_left) if standing.seconds_left is not None else "-",
            style=None if standing.workers else "dim",
        )
    return table


def _workers(standings: Sequence[StudyStatus]) -> Table:
    several = len(standings) > 1
    table = _table(*(["study"] if several else []), "worker", "trial", "trained", "climbs to", "last sign")
    for standing in standings:
        for at_work in standing.workers:
            name = f"{at_work.trial} ({at_work.label})" if at_work.label else str(at_work.trial)
            table.add_row(
                *([Text(standing.study)] if several else []),
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
    """By the clock of whoever wrote it: good enough to show a speed."""
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
