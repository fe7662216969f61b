"""The policy of a search: the next action of a worker, as a pure function of the trials and the time.

The worker (`search/worker/loop.py`), the simulator of `plan` (`search/plan/simulator.py`) and the replayed searches of
`tests/benchmarks` all call `next_action`. A search has three phases: trials begin and are promoted from rung to rung
(asynchronous successive halving); if the study asks for it, finalists are trained again from new seeds; finally the
best trial is trained from its rung to its end in the remaining time. This final part is called the last stretch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import assert_never

from search.scheduler.rungs import (
    TOP,
    LadderConfig,
    State,
    TrialView,
    leader,
    promotable,
    ranked,
    surplus_paused,
)

# The last stretch is planned for this share of the remaining time, because the speed of training varies.
TIME_SAFETY_SHARE = 0.97
# Its length is planned again after these shares of the steps then remaining: the speed is known better by then.
REPLAN_SHARES = (0.3, 0.75, 1.0)
# It has at least this share of the steps of a training, because the learning rate has to fall.
MIN_LAST_STRETCH_SHARE = 0.15
# If even the shortest last stretch takes longer than this multiple of the remaining time, another trial is chosen.
MAX_OVERRUN = 1.25
# Time after which a worker that waits for others asks again.
POLL_INTERVAL_S = 0.5
# Without a time limit, repeats of other workers are awaited for this multiple of the time that the trial has taken.
MAX_REPEAT_SLOWDOWN = 3


@dataclass(frozen=True)
class Rules:
    """Settings of a study for the scheduler."""

    ladder: LadderConfig
    trials: int
    """Maximum number of trials, retries not counted."""
    timeout: float
    """Seconds of the whole search."""
    search_share: float
    """Share of the time for new trials and promotions."""
    finish_share: float
    """Share of the time reserved for training the best trial to its end."""
    keep: int
    """Maximum number of trials paused at a rung; worse ones are pruned."""
    confirm_seeds: int = 0
    """Number of new seeds from which each finalist is trained again."""
    finalists: int = 3

    @property
    def search_seconds(self) -> float:
        return self.timeout * self.search_share

    @property
    def repeat_seconds(self) -> float:
        """Time reserved for repeats."""
        return self.timeout * (1 - self.finish_share - self.search_share)


RepeatKey = tuple[int, int]
"""Identifies a repeat: trial number, and seed number from 1."""


@dataclass(frozen=True)
class RepeatView:
    """A trial trained again from a new seed. `psnr_db` is minus infinity if it diverged."""

    trial: int
    seed: int
    steps: int
    psnr_db: float


@dataclass(frozen=True)
class Searching:
    """First phase of a worker: trials begin and are promoted."""


@dataclass(frozen=True)
class Repeating:
    """Second phase: the finalists are trained again; the workers divide `runs` among themselves."""

    runs: tuple[RepeatKey, ...]
    seconds: float | None
    """Time for each of them; None if the search ended because of its number of trials, not for lack of time."""


@dataclass(frozen=True)
class AwaitingRepeats:
    """The worker has done its repeats and waits for those of others, at most until `until` seconds of the search."""

    runs: tuple[RepeatKey, ...]
    until: float


@dataclass(frozen=True)
class Finishing:
    """Third phase: a trial is trained to its end; `times_planned` is how often its length was planned."""

    trial: int | None = None
    times_planned: int = 0
    fewest_steps: int = 0


@dataclass(frozen=True)
class Ending:
    """Last phase: trials that are still paused are pruned."""


Phase = Searching | Repeating | AwaitingRepeats | Finishing | Ending
"""Phase of a worker. Phases follow each other; none is entered twice."""


@dataclass(frozen=True)
class WorkerView:
    """The worker that asks: its index, the number of workers, its speed and its phase."""

    index: int = 0
    workers: int = 1
    seconds_per_training: float = 0.0
    """Time of a whole training on this worker: the median of its trials so far, 0 before the first."""
    phase: Phase = Searching()


@dataclass(frozen=True)
class Snapshot:
    """All that the next action depends on, except the time."""

    rules: Rules
    worker: WorkerView
    trials: Sequence[TrialView]
    """All trials of the study, in the order of their numbers."""
    repeats: Sequence[RepeatView] = ()
    """Repeats done so far; used after the first phase only."""


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted trial up to the rung that is its goal."""

    trial: int
    rung: int


@dataclass(frozen=True)
class Promote:
    """Train a paused trial up to the next rung."""

    trial: int
    rung: int


@dataclass(frozen=True)
class Begin:
    """Train a queued trial, or a new one (None), up to the lowest rung."""

    rung: int
    queued: int | None = None


@dataclass(frozen=True)
class Prune:
    """End a paused trial: others are better at its rung."""

    trial: int


@dataclass(frozen=True)
class Confirm:
    """Train the recipe of a trial again, from scratch and from a new seed."""

    trial: int
    seed: int
    steps: int


@dataclass(frozen=True)
class Finish:
    """Train a trial towards its end. A worker that has claimed it then enters `next_phase`."""

    trial: int
    steps: int | None
    """New length of the whole training; None: unchanged."""
    pause_at: int | None
    """The step at which the length is planned again."""
    next_phase: Phase


@dataclass(frozen=True)
class Wait:
    """Ask again after `seconds`. The action stays the same until other workers progress or the time `until` is over."""

    seconds: float
    until: float


@dataclass(frozen=True)
class Enter:
    """Enter another phase."""

    phase: Phase


@dataclass(frozen=True)
class Done:
    """Nothing is left to do for this worker."""


Action = Resume | Promote | Begin | Prune | Confirm | Finish | Wait | Enter | Done


def next_action(snapshot: Snapshot, elapsed: float) -> Action:
    """The next action of the worker of this snapshot, after `elapsed` seconds of the search.

    If another worker claims the trial first, the worker asks again with a new snapshot.
    """
    match snapshot.worker.phase:
        case Searching():
            return _search(snapshot, elapsed)
        case Repeating() as phase:
            return _repeat(snapshot, phase, elapsed)
        case AwaitingRepeats() as phase:
            if elapsed >= phase.until or set(phase.runs) <= _repeated(snapshot):
                return Enter(Finishing())
            return Wait(POLL_INTERVAL_S, phase.until)
        case Finishing(trial=None):
            return _finish_the_best(snapshot, elapsed)
        case Finishing() as phase:
            return _continue_finishing(snapshot, phase, elapsed)
        case Ending():
            paused = next((trial for trial in snapshot.trials if trial.is_paused), None)
            return Done() if paused is None else Prune(paused.number)
        case phase:
            assert_never(phase)


def _search(snapshot: Snapshot, elapsed: float) -> Action:
    """Action of the first phase: interrupted trials go first, then promotions, then new trials."""
    rules, trials = snapshot.rules, snapshot.trials
    for trial in surplus_paused(trials, rules.ladder, rules.keep):
        return Prune(trial.number)
    for trial in trials:
        if trial.state is State.INTERRUPTED and trial.goal is not None:
            return Resume(trial.number, trial.goal)
    for trial in promotable(trials, rules.ladder):
        rung = rules.ladder.above(trial.rung)
        if ends_in_time(snapshot, elapsed, seconds_to(trial, rung, rules.ladder)):
            return Promote(trial.number, rung)
    if (begin := _begin(snapshot, elapsed)) is not None:
        return begin
    # Scores of running trials may lead to promotions.
    if elapsed <= rules.search_seconds and any(_is_training_to_a_rung(trial) for trial in trials):
        return Wait(POLL_INTERVAL_S, rules.search_seconds)
    if rules.confirm_seeds:
        return Enter(_plan_repeats(snapshot))
    return Enter(Finishing())


def _begin(snapshot: Snapshot, elapsed: float) -> Begin | None:
    rules, trials = snapshot.rules, snapshot.trials
    lowest = rules.ladder.percents()[0]
    expected = snapshot.worker.seconds_per_training * rules.ladder.share(lowest)
    # The first trial begins however short the time is, so that there is something to export.
    if any(_has_begun(trial) for trial in trials) and not ends_in_time(snapshot, elapsed, expected):
        return None
    if (queued := next_queued(trials, rules.trials)) is not None:
        return Begin(lowest, queued)
    return Begin(lowest) if has_room(trials, rules.trials) else None


def next_queued(trials: Iterable[TrialView], most: int) -> int | None:
    """Number of the next queued trial that may begin; None if there is none.

    The first `most` trials of a study may begin, and all retries.
    """
    counted = 0
    for trial in trials:
        counted += not trial.is_retry
        if trial.state is State.QUEUED and (trial.is_retry or counted <= most):
            return trial.number
    return None


def has_room(trials: Iterable[TrialView], most: int) -> bool:
    """True if a study of at most `most` trials may have another; retries do not count."""
    return sum(not trial.is_retry for trial in trials) < most


def ends_in_time(snapshot: Snapshot, elapsed: float, expected: float) -> bool:
    """True if work of `expected` seconds ends within the first phase."""
    return elapsed + expected <= snapshot.rules.search_seconds


def seconds_to(trial: TrialView, rung: int, ladder: LadderConfig) -> float:
    """Time of a paused trial up to `rung`, estimated from the time that it has taken so far."""
    return trial.seconds * (ladder.share(rung) / ladder.share(trial.rung) - 1)


def is_limited_by_time(snapshot: Snapshot) -> bool:
    """True if the first phase ended for lack of time: with more time there would be trials to begin or to promote."""
    rules, trials = snapshot.rules, snapshot.trials
    more = has_room(trials, rules.trials) or next_queued(trials, rules.trials) is not None
    return more or bool(promotable(trials, rules.ladder))


def _has_begun(trial: TrialView) -> bool:
    return trial.goal is not None or trial.state is State.RUNNING


def _is_training_to_a_rung(trial: TrialView) -> bool:
    # A trial that has just been scored at its goal is still running until all facts are recorded.
    return trial.state in (State.RUNNING, State.INTERRUPTED) and (trial.goal or 0) < TOP


def _plan_repeats(snapshot: Snapshot) -> Repeating:
    """A repeat for every finalist and every new seed, with equal shares of the time reserved for repeats."""
    rules = snapshot.rules
    chosen = finalists(snapshot.trials, rules.ladder, rules.finalists)
    runs = tuple((trial.number, seed) for seed in range(1, rules.confirm_seeds + 1) for trial in chosen)
    if not is_limited_by_time(snapshot):
        return Repeating(runs, None)
    return Repeating(runs, rules.repeat_seconds / max(_repeats_per_worker(runs, snapshot.worker), 1))


def finalists(trials: Sequence[TrialView], ladder: LadderConfig, count: int) -> list[TrialView]:
    """The `count` best trials at the highest rung with paused trials, and the best known recipe.

    Trials that have been trained to their end are left out.
    """
    paused = [trial for trial in trials if trial.is_paused]
    best = leader(paused, ladder)
    if best is None:
        return []
    chosen = ranked(paused, best.rung)[:count]
    known = leader([trial for trial in trials if trial.is_known], ladder)
    if known is not None and known not in chosen:
        chosen.append(known)
    return [trial for trial in chosen if TOP not in trial.scores]


def _repeat(snapshot: Snapshot, phase: Repeating, elapsed: float) -> Action:
    """The next repeat of this worker; after its last one, wait for those of the others."""
    rules, worker, done = snapshot.rules, snapshot.worker, _repeated(snapshot)
    for trial, seed in phase.runs[worker.index :: worker.workers]:
        if (trial, seed) not in done:
            return Confirm(trial, seed, _steps_of_repeat(snapshot, phase, trial))
    if phase.seconds is not None:
        return Enter(AwaitingRepeats(phase.runs, rules.timeout * (1 - rules.finish_share)))
    longest = max((snapshot.trials[trial].seconds for trial, _ in phase.runs), default=0.0)
    longest_wait = MAX_REPEAT_SLOWDOWN * _repeats_per_worker(phase.runs, worker) * longest
    return Enter(AwaitingRepeats(phase.runs, elapsed + longest_wait))


def _steps_of_repeat(snapshot: Snapshot, phase: Repeating, number: int) -> int:
    """Steps of a repeat: as many as an earlier repeat of the trial had, or as many as fit into its time.

    Without a time limit: as many as up to the last rung below the end.
    """
    trial, ladder = snapshot.trials[number], snapshot.rules.ladder
    for repeat in snapshot.repeats:
        if repeat.trial == number:
            return repeat.steps
    if phase.seconds is not None:
        return max(1, int(phase.seconds / trial.seconds_per_step))
    return min(max(1, round(trial.steps * ladder.shares()[-2])), trial.steps)


def _repeated(snapshot: Snapshot) -> set[RepeatKey]:
    return {(repeat.trial, repeat.seed) for repeat in snapshot.repeats}


def _repeats_per_worker(runs: Sequence[RepeatKey], worker: WorkerView) -> int:
    """Number of repeats that each worker makes, one after another."""
    return math.ceil(len(runs) / worker.workers)


def best_repeated(repeats: Iterable[RepeatView]) -> list[int]:
    """Numbers of the trials with repeats, by mean score, best first; those with a diverged repeat come last."""
    scores: dict[int, list[float]] = {}
    for repeat in repeats:
        scores.setdefault(repeat.trial, []).append(repeat.psnr_db)
    return sorted(scores, key=lambda number: (-fmean(scores[number]), number))


def _finish_the_best(snapshot: Snapshot, elapsed: float) -> Action:
    """Train the best paused trial to its end.

    If the search is limited by time, the length is chosen to fit the remaining time, and each worker takes one
    trial. Otherwise only the best trial is finished, at its planned length.
    """
    rules, seconds_left = snapshot.rules, snapshot.rules.timeout - elapsed
    can_win = [trial for trial in snapshot.trials if _can_win(trial)]
    first = leader(can_win, rules.ladder)
    if first is None:
        return Enter(Ending())
    limited_by_time = is_limited_by_time(snapshot)
    time_for_another = limited_by_time and seconds_left > rules.timeout * rules.finish_share / 2
    if not first.is_paused and not time_for_another:
        return Enter(Ending())
    paused = finish_order(snapshot)
    chosen = next(
        (trial for trial in paused if not limited_by_time or overrun_seconds(trial, seconds_left) <= 0), None
    )
    if chosen is None and all(trial.is_paused for trial in can_win):
        # One trial is finished in any case, even if it ends late.
        chosen = min(paused, key=lambda trial: overrun_seconds(trial, seconds_left), default=None)
    if chosen is None:
        return Enter(Ending())
    if not limited_by_time:
        return Finish(chosen.number, None, None, next_phase=Ending())
    return _plan_last_stretch(
        chosen, Finishing(chosen.number, 0, fewest_steps(chosen.steps_done)), seconds_left
    )


def _can_win(trial: TrialView) -> bool:
    """True if a trial is paused, has been trained to its end, or is on its last stretch with another worker."""
    return trial.is_paused or TOP in trial.scores or (trial.state is State.RUNNING and trial.goal == TOP)


def finish_order(snapshot: Snapshot) -> list[TrialView]:
    """Paused trials in the order of finishing: by repeats if there are any, then by rung, then by score."""
    paused = [trial for trial in snapshot.trials if trial.is_paused]
    by_rung = [t.number for rung in snapshot.rules.ladder.percents()[::-1] for t in ranked(paused, rung)]
    confirmed = [number for number in best_repeated(snapshot.repeats) if number in by_rung]
    return [snapshot.trials[number] for number in dict.fromkeys(confirmed + by_rung)]


def _continue_finishing(snapshot: Snapshot, phase: Finishing, elapsed: float) -> Action:
    """The next part of the last stretch of the trial that this worker finishes."""
    assert phase.trial is not None
    trial = snapshot.trials[phase.trial]
    if trial.state is not State.INTERRUPTED or phase.times_planned == len(REPLAN_SHARES):
        return Enter(Ending())
    return _plan_last_stretch(trial, phase, snapshot.rules.timeout - elapsed)


def _plan_last_stretch(trial: TrialView, phase: Finishing, seconds_left: float) -> Finish:
    """A part of the last stretch: a length that fits the remaining time, and the step at which to plan again."""
    done = trial.steps_done
    steps = max(affordable_steps(trial, seconds_left), phase.fewest_steps, done + 1)
    pause_at = done + math.ceil(REPLAN_SHARES[phase.times_planned] * (steps - done))
    return Finish(
        trial.number, steps, pause_at, Finishing(trial.number, phase.times_planned + 1, phase.fewest_steps)
    )


def affordable_steps(trial: TrialView, seconds_left: float) -> int:
    """Steps of a whole training that ends within the remaining time."""
    for_steps = seconds_left * TIME_SAFETY_SHARE - seconds_of_scores(trial)
    return int(trial.steps_done + max(for_steps / trial.seconds_per_step, 1))


def fewest_steps(done: int) -> int:
    """Steps of the shortest whole training whose last stretch begins after `done` steps."""
    return max(math.ceil(done / (1 - MIN_LAST_STRETCH_SHARE)), done + 1)


def overrun_seconds(trial: TrialView, seconds_left: float) -> float:
    """Seconds by which the shortest last stretch of a trial exceeds `MAX_OVERRUN` times the remaining time."""
    needed = (fewest_steps(trial.steps_done) - trial.steps_done) * trial.seconds_per_step
    return needed + seconds_of_scores(trial) - MAX_OVERRUN * seconds_left


def seconds_of_scores(trial: TrialView) -> float:
    """Time of the scores still to come, estimated from the earlier ones."""
    so_far = max(trial.seconds - trial.seconds_per_step * trial.steps_done, 0.0)
    return so_far / max(trial.scored, 1) * trial.scores_to_come
