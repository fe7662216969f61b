"""Searches that are interrupted, by Ctrl-C or worse, and go on."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from search.__main__ import main
from search.database import default_storage_url, load_study
from search.worker import Worker
from tests.search.runs import DSD, FIXED, at_work, scores, search, signal_at, started, wait_until

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]


def test_interrupted_study_equals_an_unbroken_one(
    study_file: StudyFile, out: Path, tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file(more=DSD)
    with monkeypatch.context() as patch:
        # Twice in the same trial, the second time in its sparse phase.
        for step, number in ((3, signal.SIGINT), (5, signal.SIGTERM)):
            signal_at(patch, step, number=number)
            outcome = search(path, out)
            assert outcome.stopped
            assert [trial.state for trial in trials()] == [TrialState.WAITING]
            assert (out / "tiny" / "trial-0000" / "state.pt").exists()
            patch.undo()
    assert not search(path, out).stopped
    search(path, tmp_path / "unbroken")
    unbroken = load_study("tiny", default_storage_url(tmp_path / "unbroken")).trials
    for ours, theirs in zip(trials(), unbroken, strict=True):
        assert ours.state == theirs.state == TrialState.COMPLETE
        assert (ours.value, ours.params, scores(ours)) == (theirs.value, theirs.params, scores(theirs))
        assert ours.intermediate_values == theirs.intermediate_values


def test_second_interrupt_leaves_at_once_and_the_trial_goes_on_later(
    study_file: StudyFile,
    out: Path,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["run", "--study", str(study_file()), "--out", str(out), "--quiet"]
    with monkeypatch.context() as patch:
        signal_at(patch, step=5, times=2)
        assert main(command) == 130
    assert capsys.readouterr().err == "stopped at once; the same command goes on\n"
    assert [trial.state for trial in trials()] == [TrialState.WAITING]
    assert main(command) == 0
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE] * 2


def test_interrupt_after_a_trial_was_recorded_keeps_it(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "_delete_unneeded_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(study_file(), out)
    assert [trial.state for trial in trials()] == [TrialState.COMPLETE]


# A first rung soon, and some work after it.
LONG = ("steps = 8", "steps = 400"), ("evaluations = 4", "evaluations = 20")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_process_ended_from_outside_leaves_a_trial_that_completes_under_its_number(
    ending: signal.Signals, study_file: StudyFile, out: Path, trials: Trials
) -> None:
    path = study_file(*LONG, *FIXED)
    with started(path, out) as process:
        wait_until(lambda: at_work(out, 0))
        process.send_signal(ending)
        stdout, stderr = process.communicate(timeout=180)
    assert "Traceback" not in stderr
    if ending == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        # Its worker sees that it is gone.
        wait_until(lambda: [trial.state for trial in trials()] == [TrialState.WAITING])
    else:
        assert process.returncode == 130
        assert [trial.state for trial in trials()] == [TrialState.WAITING]
        assert "kept to go on" in stdout
        assert f"stopped; go on with: python -m search run --study {path} --out {out}" in stdout
    resumed_at = int(torch.load(out / "tiny" / "trial-0000" / "state.pt", weights_only=True)["step"])
    assert resumed_at >= 20
    search(path, out, trials=1)
    (trial,) = trials()
    assert (trial.number, trial.state) == (0, TrialState.COMPLETE)
    assert [score[0] for score in scores(trial)] == list(range(20, 401, 20))
