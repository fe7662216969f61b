"""The policy of a search: what a worker does next, as a pure function of what is known at that moment.

The worker (`loop`), the simulation of `plan` (`simulator`) and the replayed searches of `tests/benchmarks`
all ask `next_action`. The time of a search is divided in three: trials begin and are promoted from rung to
rung (asynchronous successive halving); where the study asks for it, the best are trained again from new
seeds; the best of all is trained to its end, in the time that is left.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import assert_never

from search.scheduler.rungs import TOP, LadderConfig, State, TrialView, leader, promotable, ranked, surplus

# The last stretch is planned for this share of the time left: steps and scores are not equally fast each time.
SAFETY = 0.97
# It is planned anew after these shares of the steps that are left then: the pace is known better on the way.
LOOKS = (0.3, 0.75, 1.0)
# It takes at least this share of a training, however little time is left for it: the learning rate has to fall.
SHORTEST_STRETCH = 0.15
# The shortest one may take so many times the time left; where it takes longer, another trial is trained to its end.
MOST_OVER = 1.25
# A worker that waits for others looks again after so long.
MOMENT_S = 0.5
# How many times as long as its trial a repeat may take on another worker where no clock decides: it may be slower.
PATIENCE = 3


@dataclass(frozen=True)
class Rules:
    """What a study says about how it is searched."""

    ladder: LadderConfig
    trials: int
    """As many may begin; those tried again are not counted."""
    timeout: float
    """Seconds of the whole search."""
    search_share: float
    """Share of them for new trials and promotions."""
    finish_share: float
    """Share of them kept for the best trial to be trained to its end."""
    keep: int
    """So many trials stay paused at a rung; those behind them are pruned."""
    confirm_seeds: int = 0
    """The finalists are trained again from so many new seeds."""
    finalists: int = 3

    @property
    def search_seconds(self) -> float:
        return self.timeout * self.search_share

    @property
    def repeat_seconds(self) -> float:
        """Time kept for repeats."""
        return self.timeout * (1 - self.finish_share - self.search_share)


Run = tuple[int, int]
"""A repeat: the trial, and which of its new seeds."""


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

    runs: tuple[Run, ...]
    seconds: float | None
    """For each of them; None where the search ended for its number of trials, and no clock decides."""


@dataclass(frozen=True)
class AwaitingRepeats:
    """Its own repeats are done: the worker waits for those of others, until so many seconds of the search."""

    runs: tuple[Run, ...]
    until: float


@dataclass(frozen=True)
class Finishing:
    """Third phase: a trial is trained to its end; `looks` is how often its length was planned."""

    trial: int | None = None
    looks: int = 0
    fewest_steps: int = 0


@dataclass(frozen=True)
class Ending:
    """Last phase: whoever is still paused is pruned."""


Phase = Searching | Repeating | AwaitingRepeats | Finishing | Ending
"""How far a worker is. None of them comes twice."""


@dataclass(frozen=True)
class WorkerView:
    """The worker that asks: which of how many it is, and how far."""

    index: int = 0
    workers: int = 1
    seconds_per_training: float = 0.0
    """That a whole training takes it: the median of what it has seen, 0 before."""
    phase: Phase = Searching()


@dataclass(frozen=True)
class Snapshot:
    """All that the next action depends on, but for the time."""

    rules: Rules
    worker: WorkerView
    trials: Sequence[TrialView]
    """All trials of the study, each at the place of its number."""
    repeats: Sequence[RepeatView] = ()
    """Those that are done; they count once a worker searches no more."""


@dataclass(frozen=True)
class Resume:
    """Train a trial that was interrupted, up to the rung that it was on its way to."""

    trial: int
    rung: int


@dataclass(frozen=True)
class Promote:
    """Train a paused trial up to the next rung."""

    trial: int
    rung: int


@dataclass(frozen=True)
class Begin:
    """Train a trial up to its first rung: one that is queued, or a new one."""

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
    """Train a trial towards its end. A worker that has taken it goes over to the phase `then`."""

    trial: int
    steps: int | None
    """Of the whole training from here on; None: as many as were planned."""
    pause_at: int | None
    """The step at which the length is planned anew."""
    then: Phase


@dataclass(frozen=True)
class Wait:
    """Look again after `seconds`. Only the work of others, or the time `until`, leads to another action."""

    seconds: float
    until: float


@dataclass(frozen=True)
class Enter:
    """Go over to another phase."""

    phase: Phase


@dataclass(frozen=True)
class Done:
    """Nothing is left to do for this worker."""


Action = Resume | Promote | Begin | Prune | Confirm | Finish | Wait | Enter | Done


def next_action(snapshot: Snapshot, elapsed: float) -> Action:
    """What the worker of this snapshot does next, after `elapsed` seconds of the search.

    Another worker may be faster to take the trial that is named: then the worker asks again, with a new snapshot.
    """
    match snapshot.worker.phase:
        case Searching():
            return _search(snapshot, elapsed)
        case Repeating() as phase:
            return _repeat(snapshot, phase, elapsed)
        case AwaitingRepeats() as phase:
            if elapsed >= phase.until or set(phase.runs) <= _repeated(snapshot):
                return Enter(Finishing())
            return Wait(MOMENT_S, phase.until)
        case Finishing(trial=None):
            return _finish_the_best(snapshot, elapsed)
        case Finishing() as phase:
            return _finish_further(snapshot, phase, elapsed)
        case Ending():
            paused = next((trial for trial in snapshot.trials if trial.is_paused), None)
            return Done() if paused is None else Prune(paused.number)
        case phase:
            assert_never(phase)


def _search(snapshot: Snapshot, elapsed: float) -> Action:
    """Interrupted trials go first, then the best that are paused, then new ones."""
    rules, trials = snapshot.rules, snapshot.trials
    for trial in surplus(trials, rules.ladder, rules.keep):
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
    # Others may be about to report scores that promote someone.
    if elapsed <= rules.search_seconds and any(_is_on_its_way(trial) for trial in trials):
        return Wait(MOMENT_S, rules.search_seconds)
    if rules.confirm_seeds:
        return Enter(_plan_repeats(snapshot))
    return Enter(Finishing())


def _begin(snapshot: Snapshot, elapsed: float) -> Begin | None:
    rules, trials = snapshot.rules, snapshot.trials
    lowest = rules.ladder.percents()[0]
    expected = snapshot.worker.seconds_per_training * rules.ladder.share(lowest)
    # However short the time, one trial is made: there is something to export then.
    if any(_has_begun(trial) for trial in trials) and not ends_in_time(snapshot, elapsed, expected):
        return None
    if (queued := next_queued(trials, rules.trials)) is not None:
        return Begin(lowest, queued)
    return Begin(lowest) if has_room(trials, rules.trials) else None


def next_queued(trials: Iterable[TrialView], most: int) -> int | None:
    """The trial that begins next, of those that wait for their first step.

    The first `most` trials of a study may begin, and those that are tried again.
    """
    counted = 0
    for trial in trials:
        counted += not trial.is_retry
        if trial.state is State.QUEUED and (trial.is_retry or counted <= most):
            return trial.number
    return None


def has_room(trials: Iterable[TrialView], most: int) -> bool:
    """Whether a study of at most `most` trials may have another; trials tried again do not count."""
    return sum(not trial.is_retry for trial in trials) < most


def ends_in_time(snapshot: Snapshot, elapsed: float, expected: float) -> bool:
    """Whether work of `expected` seconds ends in the time for new trials and promotions."""
    return elapsed + expected <= snapshot.rules.search_seconds


def seconds_to(trial: TrialView, rung: int, ladder: LadderConfig) -> float:
    """Time that a paused trial takes up to `rung`, as far as what it took so far tells."""
    return trial.seconds * (ladder.share(rung) / ladder.share(trial.rung) - 1)


def clock_decides(snapshot: Snapshot) -> bool:
    """Whether a search that has come to its end did so for lack of time: with more, it would go on."""
    rules, trials = snapshot.rules, snapshot.trials
    more = has_room(trials, rules.trials) or next_queued(trials, rules.trials) is not None
    return more or bool(promotable(trials, rules.ladder))


def _has_begun(trial: TrialView) -> bool:
    return trial.goal is not None or trial.state is State.RUNNING


def _is_on_its_way(trial: TrialView) -> bool:
    # One that has just been scored at its goal is still running: what it says is not yet all there.
    return trial.state in (State.RUNNING, State.INTERRUPTED) and (trial.goal or 0) < TOP


def _plan_repeats(snapshot: Snapshot) -> Repeating:
    """Every finalist from every new seed, each for an equal share of the time kept for it."""
    rules = snapshot.rules
    chosen = finalists(snapshot.trials, rules.ladder, rules.finalists)
    runs = tuple((trial.number, seed) for seed in range(1, rules.confirm_seeds + 1) for trial in chosen)
    if not clock_decides(snapshot):
        return Repeating(runs, None)
    return Repeating(runs, rules.repeat_seconds / max(_rounds(runs, snapshot.worker), 1))


def finalists(trials: Sequence[TrialView], ladder: LadderConfig, count: int) -> list[TrialView]:
    """The `count` best at the highest rung that anyone is paused at, and the best recipe known beforehand.

    Without those that have been trained to their end.
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
    """The next repeat of this worker's share of them; then those of the others are waited for."""
    rules, worker, done = snapshot.rules, snapshot.worker, _repeated(snapshot)
    for trial, seed in phase.runs[worker.index :: worker.workers]:
        if (trial, seed) not in done:
            return Confirm(trial, seed, _steps_of_repeat(snapshot, phase, trial))
    if phase.seconds is not None:
        return Enter(AwaitingRepeats(phase.runs, rules.timeout * (1 - rules.finish_share)))
    longest = max((snapshot.trials[trial].seconds for trial, _ in phase.runs), default=0.0)
    patience = PATIENCE * _rounds(phase.runs, worker) * longest
    return Enter(AwaitingRepeats(phase.runs, elapsed + patience))


def _steps_of_repeat(snapshot: Snapshot, phase: Repeating, number: int) -> int:
    """As many as an earlier repeat of the trial had, or as many as fit.

    Where no clock decides: as many as from the start to the last rung below the end.
    """
    trial, ladder = snapshot.trials[number], snapshot.rules.ladder
    for repeat in snapshot.repeats:
        if repeat.trial == number:
            return repeat.steps
    if phase.seconds is not None:
        return max(1, int(phase.seconds / trial.seconds_per_step))
    return min(max(1, round(trial.steps * ladder.shares()[-2])), trial.steps)


def _repeated(snapshot: Snapshot) -> set[Run]:
    return {(repeat.trial, repeat.seed) for repeat in snapshot.repeats}


def _rounds(runs: Sequence[Run], worker: WorkerView) -> int:
    """How many repeats each worker makes, one after another."""
    return math.ceil(len(runs) / worker.workers)


def best_repeated(repeats: Iterable[RepeatView]) -> list[int]:
    """Numbers of the trials trained again, the best mean first; those with a repeat that diverged come last."""
    scores: dict[int, list[float]] = {}
    for repeat in repeats:
        scores.setdefault(repeat.trial, []).append(repeat.psnr_db)
    return sorted(scores, key=lambda number: (-fmean(scores[number]), number))


def _finish_the_best(snapshot: Snapshot, elapsed: float) -> Action:
    """Train the best paused trial to its end.

    Where the clock decides, its length is made to fit the time that is left, and workers take one trial
    each. Otherwise the leader is all there is to finish, at its planned length.
    """
    rules, left = snapshot.rules, snapshot.rules.timeout - elapsed
    may_win = [trial for trial in snapshot.trials if _may_win(trial)]
    first = leader(may_win, rules.ladder)
    if first is None:
        return Enter(Ending())
    clocked = clock_decides(snapshot)
    time_for_another = clocked and left > rules.timeout * rules.finish_share / 2
    if not first.is_paused and not time_for_another:
        return Enter(Ending())
    paused = finish_order(snapshot)
    chosen = next((trial for trial in paused if not clocked or seconds_over(trial, left) <= 0), None)
    if chosen is None and all(trial.is_paused for trial in may_win):
        # There is to be a winner, even if it comes late.
        chosen = min(paused, key=lambda trial: seconds_over(trial, left), default=None)
    if chosen is None:
        return Enter(Ending())
    if not clocked:
        return Finish(chosen.number, None, None, then=Ending())
    return _stretch(chosen, Finishing(chosen.number, 0, fewest_steps(chosen.steps_done)), left)


def _may_win(trial: TrialView) -> bool:
    """Whether a trial is paused, has been trained to its end, or is on its last stretch with another worker."""
    return trial.is_paused or TOP in trial.scores or (trial.state is State.RUNNING and trial.goal == TOP)


def finish_order(snapshot: Snapshot) -> list[TrialView]:
    """Paused trials, the one to finish first: by their repeats where there are any, then by rung, then by score."""
    paused = [trial for trial in snapshot.trials if trial.is_paused]
    by_rung = [t.number for rung in snapshot.rules.ladder.percents()[::-1] for t in ranked(paused, rung)]
    confirmed = [number for number in best_repeated(snapshot.repeats) if number in by_rung]
    return [snapshot.trials[number] for number in dict.fromkeys(confirmed + by_rung)]


def _finish_further(snapshot: Snapshot, phase: Finishing, elapsed: float) -> Action:
    """The next part of the last stretch, planned anew, of the trial that this worker has begun to finish."""
    assert phase.trial is not None
    trial = snapshot.trials[phase.trial]
    if trial.state is not State.INTERRUPTED or phase.looks == len(LOOKS):
        return Enter(Ending())
    return _stretch(trial, phase, snapshot.rules.timeout - elapsed)


def _stretch(trial: TrialView, phase: Finishing, left: float) -> Finish:
    """Towards the end in the time `left`, and how far before that is looked at again."""
    done = trial.steps_done
    steps = max(affordable_steps(trial, left), phase.fewest_steps, done + 1)
    pause_at = done + math.ceil(LOOKS[phase.looks] * (steps - done))
    return Finish(trial.number, steps, pause_at, Finishing(trial.number, phase.looks + 1, phase.fewest_steps))


def affordable_steps(trial: TrialView, left: float) -> int:
    """The length of the whole training that ends with the time `left`."""
    for_steps = left * SAFETY - seconds_of_scores(trial)
    return int(trial.steps_done + max(for_steps / trial.seconds_per_step, 1))


def fewest_steps(done: int) -> int:
    """The shortest whole training with so many steps before its last stretch."""
    return max(math.ceil(done / (1 - SHORTEST_STRETCH)), done + 1)


def seconds_over(trial: TrialView, left: float) -> float:
    """How much longer than the time `left` (and a little more) the shortest way of a trial to its end takes."""
    needed = (fewest_steps(trial.steps_done) - trial.steps_done) * trial.seconds_per_step
    return needed + seconds_of_scores(trial) - MOST_OVER * left


def seconds_of_scores(trial: TrialView) -> float:
    """Time of the scores that are still to come, as far as the earlier ones tell."""
    so_far = max(trial.seconds - trial.seconds_per_step * trial.steps_done, 0.0)
    return so_far / max(trial.scored, 1) * trial.scores_to_come
