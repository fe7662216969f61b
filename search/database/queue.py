"""Snapshots of a study's trials for the scheduler, read from the database."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.database.studies import FrozenTrial, Study, TrialState, database_of
from search.database.trial_facts import RETRY, TrialFacts, facts_of
from search.scheduler import LadderConfig, RepeatView, Rules, Snapshot, State, TrialView, WorkerView
from search.trial import TrialConfig

STATES = {
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
}


class Queue:
    """The trials of one study as views for the scheduler. Views of ended trials are cached: they do not change."""

    def __init__(self, study: Study, rules: Rules) -> None:
        self.study, self.rules = study, rules
        self._ended: dict[int, TrialView] = {}
        self._waiting: dict[int, tuple[FrozenTrial, TrialView]] = {}

    def snapshot(self, worker: WorkerView, repeats: Sequence[RepeatView] = ()) -> Snapshot:
        """The input of `next_action` for this worker, without the time."""
        return Snapshot(self.rules, worker, self.trials(), repeats)

    def trials(self) -> list[TrialView]:
        """All trials, by number."""
        trials = self.study.get_trials(deepcopy=False)
        return [self._ended.get(number) or self._seen(trial) for number, trial in enumerate(trials)]

    def _seen(self, trial: FrozenTrial) -> TrialView:
        before, known = self._waiting.get(trial.number, (None, None))
        if known is not None and trial == before:
            return known
        seen = trial_view(trial, self.rules.ladder)
        if trial.state.is_finished():
            self._ended[trial.number] = seen
            self._waiting.pop(trial.number, None)
        elif trial.state == TrialState.WAITING:
            self._waiting[trial.number] = trial, seen
        return seen


def trial_view(trial: FrozenTrial, ladder: LadderConfig) -> TrialView:
    """The view of a stored trial for the scheduler."""
    facts, state = facts_of(trial), state_of(trial)
    counts = facts.goal is not None and state is not State.FAILED
    scored, to_come = _scores(facts) if state in (State.PAUSED, State.INTERRUPTED) else (0, 0.0)
    return TrialView(
        number=trial.number,
        state=state,
        scores={p: s for p, s in trial.intermediate_values.items() if p in ladder.percents()}
        if counts
        else {},
        unreliable_rungs=ladder.unreliable_rungs(facts.steps),
        goal=facts.goal,
        steps=facts.steps,
        steps_done=facts.steps_done,
        seconds=facts.seconds,
        seconds_per_step=facts.seconds_per_step,
        scored=scored,
        scores_to_come=to_come,
        is_known=facts.label is not None,
        is_retry=facts.retry_of is not None,
    )


def state_of(trial: FrozenTrial) -> State:
    """Current state of a stored trial, in the terms of the scheduler."""
    if trial.state != TrialState.WAITING:
        return STATES[trial.state]
    if not has_begun(trial):
        return State.QUEUED
    return State.INTERRUPTED if is_under_way(trial) else State.PAUSED


def _scores(facts: TrialFacts) -> tuple[int, float]:
    """Number of scores so far, and still to come; the final score has more images and counts by their pixels."""
    if not facts.steps_done:
        return 0, 0.0
    config = TrialConfig.model_validate(facts.config)
    to_come = sum(step > facts.steps_done for step in config.rungs())
    return len(facts.rungs), to_come + config.val_megapixels / config.rung_megapixels


def is_under_way(trial: FrozenTrial) -> bool:
    """True if a trial has not reached its goal yet."""
    reached = max(trial.intermediate_values, default=0)
    return trial.state in (TrialState.RUNNING, TrialState.WAITING) and (facts_of(trial).goal or 0) > reached


def has_begun(trial: FrozenTrial) -> bool:
    """True if a worker has started the trial at any time."""
    return facts_of(trial).goal is not None or trial.state == TrialState.RUNNING


def begin_if_room(study: Study, most: int, facts: Mapping[str, Any]) -> int | None:
    """Add a running trial with these facts; its number, or None if the study has `most` trials.

    Retries are not counted. The limit also holds if several workers begin trials at the same time.
    """
    return database_of(study).begin(study._study_id, most, RETRY, facts)
