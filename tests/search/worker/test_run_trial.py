"""Outcomes of training a trial."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from data.sources import Split
from search.database import Heartbeat, begin_trial, default_storage_url, facts_of, this_process
from search.database.studies import change_trial
from search.errors import UserError
from search.inference import Score
from search.study import load_spec
from search.terminal import Progress
from search.trial import Diverged, Stopped
from search.trial.training import TrialResult
from search.worker import RunOptions, StopSignals, Worker, prepare_search, run_trial
from search.worker.run_trial import TrialOutcome

Trials = Callable[..., list[optuna.trial.FrozenTrial]]


@pytest.fixture
def made(study_file: Callable[..., Path], out: Path) -> Iterator[Worker]:
    """A worker of the tiny study, which asks for two rungs and limits nothing."""
    spec = load_spec(str(study_file(("rungs = 0", "rungs = 2"))))
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    opened = prepare_search(spec, options)
    heartbeat = Heartbeat(opened.study)
    progress = Progress(spec.name, 0.0, spec.trials, 0.0, quiet=True)
    with progress:
        yield Worker(opened.spec, options, opened.study, opened.split, StopSignals(), progress, heartbeat)


def begun(made: Worker, goal: int = 100) -> optuna.Trial:
    trial = begin_trial(made.study, 99, made.sampler, goal=goal)
    assert trial is not None
    return trial


def trained(monkeypatch: pytest.MonkeyPatch, end: BaseException | TrialResult) -> None:
    """Training ends in this way."""

    def train(*_: object) -> TrialResult:
        if isinstance(end, TrialResult):
            return end
        raise end

    monkeypatch.setattr(run_trial, "train", train)


def attempt(made: Worker) -> TrialOutcome:
    """One attempt at a new trial, as `work_on` makes it."""
    outcomes: list[TrialOutcome] = []
    record = made._record

    def noting(trial: optuna.Trial, outcome: TrialOutcome, *rest: Any) -> None:
        outcomes.append(outcome)
        record(trial, outcome, *rest)

    made._record = noting  # type: ignore[method-assign]
    made.work_on(begun(made))
    (outcome,) = outcomes
    return outcome


@pytest.mark.parametrize(
    ("error", "outcome", "state"),
    [
        (Stopped("at step 3 of 8"), TrialOutcome(TrialState.WAITING, "at step 3 of 8"), TrialState.WAITING),
        (
            optuna.TrialPruned("out of time at step 6"),
            TrialOutcome(TrialState.PRUNED, "out of time at step 6"),
            TrialState.PRUNED,
        ),
        (
            Diverged("diverged at step 1"),
            TrialOutcome(TrialState.PRUNED, "diverged at step 1"),
            TrialState.PRUNED,
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nmore words"),
            TrialOutcome(TrialState.PRUNED, "out of memory: CUDA out of memory."),
            TrialState.PRUNED,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_training_that_does_not_come_to_its_end(
    error: Exception,
    outcome: TrialOutcome,
    state: TrialState,
    made: Worker,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained(monkeypatch, error)
    assert attempt(made) == outcome
    (trial,) = trials()
    assert trial.state == state
    assert facts_of(trial).ended == (outcome.why if outcome.ended else "")
    assert facts_of(trial).seconds > 0
    assert not made.latest_errors


def test_training_that_comes_to_its_end(
    made: Worker, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Score(8, 24.5, 0.8, 0.04, 1.0)
    trained(
        monkeypatch,
        TrialResult(score, image_scores=[], rungs=[score], rescues=[], weights=made.options.out / "none"),
    )
    outcome = attempt(made)
    assert (outcome.state, outcome.why, outcome.psnr_db) == (TrialState.COMPLETE, "finished", 24.5)
    (trial,) = trials()
    facts = facts_of(trial)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 24.5)
    assert (facts.psnr_db, facts.ssim, facts.mae, facts.ended) == (24.5, 0.8, 0.04, "finished")


def test_bug_fails_the_trial_and_is_remembered_until_another_trial_ends_otherwise(
    made: Worker, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(monkeypatch, RuntimeError("shapes do not fit"))
    outcome = attempt(made)
    assert (outcome.state, outcome.why) == (TrialState.FAIL, "RuntimeError: shapes do not fit")
    assert "raise end" in facts_of(trials()[0]).traceback
    assert made.latest_errors == ["RuntimeError: shapes do not fit"]
    trained(monkeypatch, Diverged("diverged"))
    made.work_on(begun(made))
    assert [trial.state for trial in trials()] == [TrialState.FAIL, TrialState.PRUNED]
    assert not made.latest_errors


@pytest.mark.parametrize(
    "error", [OSError("disk is full"), UserError("the database is away"), KeyboardInterrupt()]
)
def test_what_is_no_fault_of_the_trial_leaves_it_in_the_queue(
    error: BaseException, made: Worker, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(monkeypatch, error)
    with pytest.raises(type(error)):
        made.work_on(begun(made))
    (trial,) = trials()
    assert (trial.state, facts_of(trial).owner, facts_of(trial).ended) == (TrialState.WAITING, {}, "")


@pytest.mark.parametrize("error", [Stopped("at step 3 of 8"), Diverged("diverged")])
def test_trial_that_another_worker_has_taken_is_left_alone(
    error: Exception, made: Worker, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(monkeypatch, error)
    trial = begun(made)
    other = {**this_process(), "worker": "other"}

    def taken(*_: object) -> TrialOutcome:
        change_trial(made.study, trial._trial_id, {"owner": other})
        made.heartbeat.beat_once()
        outcome: TrialOutcome = attempted(*_)
        return outcome

    attempted: Any = made._attempt
    monkeypatch.setattr(made, "_attempt", taken)
    made.work_on(trial)
    (found,) = trials()
    assert (found.state, facts_of(found).owner) == (TrialState.RUNNING, other)
    assert "seconds" not in found.user_attrs


def test_trial_pauses_at_the_rung_that_it_was_sent_to(made: Worker, split: Split, trials: Trials) -> None:
    lowest = made.spec.ladder.percents()[0]
    made.work_on(begun(made, goal=lowest))
    (trial,) = trials()
    assert trial.state == TrialState.WAITING
    assert list(trial.intermediate_values) == [lowest]
    facts = facts_of(trial)
    assert facts.steps_done == max(round(made.spec.ladder.share(lowest) * 8), 1)
    assert facts.data == split.fingerprint
    assert made.seconds_per_training
