"""`retry`: what failed is tried again as a new trial, and what did not is refused in a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from search.__main__ import main
from search.database import default_storage_url, load_study, open_database, record_study
from search.errors import UserError
from search.launch import run_in_process
from search.manage import failed_trials, retry_trials
from search.study import load_spec
from search.worker import RunOptions

Trials = Callable[..., list[optuna.trial.FrozenTrial]]
SPACE = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "width": CategoricalDistribution(["4", "6"]),
}
MEMORY = "out of memory: tried to allocate 3 GiB"


@pytest.fixture
def study(out: Path) -> optuna.Study:
    database = open_database(default_storage_url(out), create=True)
    made = optuna.create_study(study_name="tiny", storage=database, direction="maximize")
    record_study(made, recipe={})
    return made


def ended(study: optuna.Study, state: TrialState, value: float | None = None, **facts: Any) -> None:
    params = {"optimizer.lr": 0.004, "width": "6"}
    study.add_trial(
        create_trial(state=state, value=value, params=params, distributions=SPACE, user_attrs=facts)
    )


def test_new_trial_has_the_settings_of_the_failed_one(study: optuna.Study) -> None:
    ended(study, TrialState.FAIL, replaced={"precision": "fp32"}, goal=25, ended="RuntimeError: boom")
    assert retry_trials(study, [0]) == {0: 1}
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    again = study.ask()
    assert again.number == 1
    lr = again.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    assert (lr, again.suggest_categorical("width", ["4", "6"])) == (0.004, "6")
    assert again.user_attrs == {"label": "retry of 0", "replaced": {"precision": "fp32"}, "retry_of": 0}


def test_what_had_not_been_drawn_comes_from_the_known_recipe(study: optuna.Study) -> None:
    study.enqueue_trial({"optimizer.lr": 0.01, "width": "4"})
    begun = study.ask()
    begun.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    study.tell(begun, state=TrialState.FAIL)
    retry_trials(study, [0])
    again = study.ask()
    assert again.suggest_categorical("width", ["4", "6"]) == "4"
    assert again.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True) == 0.01


def test_others_are_refused_in_a_line_each_and_nothing_is_queued(study: optuna.Study, trials: Trials) -> None:
    ended(study, TrialState.COMPLETE, 24.0)
    ended(study, TrialState.PRUNED, ended="over the limits: 90,000 parameters (at most 50,000)")
    ended(study, TrialState.FAIL)
    study.enqueue_trial({"width": "4"})
    with pytest.raises(UserError) as refused:
        retry_trials(study, [0, 1, 2, 3, 9])
    complete, pruned, waiting, missing = str(refused.value).splitlines()
    assert complete.startswith("trial 0: is complete; ")
    assert pruned.startswith("trial 1: is pruned (over the limits: 90,000 parameters")
    assert waiting.startswith("trial 3: is waiting to begin")
    assert missing == "trial 9: no such trial (there are 0 to 3)"
    assert len(trials()) == 4


@pytest.mark.parametrize("reason", [MEMORY, "diverged at step 3 (loss nan, largest restored value nan)"])
def test_lack_of_memory_and_divergence_are_tried_again_by_number(study: optuna.Study, reason: str) -> None:
    ended(study, TrialState.PRUNED, ended=reason)
    assert failed_trials(study) == []
    assert retry_trials(study, [0, 0]) == {0: 1}


def test_trial_is_tried_again_once(study: optuna.Study) -> None:
    ended(study, TrialState.FAIL)
    retry_trials(study, [0])
    with pytest.raises(
        UserError, match="trial 0: has been tried again as trial 1, which is waiting to begin"
    ):
        retry_trials(study, [0])


def test_command_queues_all_that_failed(
    study: optuna.Study, trials: Trials, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for state in (TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL):
        ended(study, state, ended=MEMORY)
    study.set_user_attr("commands", ["python -m search run --study tiny"])
    assert main(["retry", "tiny", "1", "--failed", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "trial 1 is tried again as trial 3",
        "trial 0 is tried again as trial 4",
        "trial 2 is tried again as trial 5",
        "go on with: python -m search run --study tiny",
    ]
    assert [trial.state for trial in trials()[3:]] == [TrialState.WAITING] * 3
    assert main(["retry", "tiny", "--failed", "--out", str(out)]) == 0
    assert capsys.readouterr().out == "nothing in tiny is left to be tried again\n"
    assert main(["retry", "tiny", "--out", str(out)]) == 2
    assert "name the trials by their numbers" in capsys.readouterr().err


def test_next_run_takes_it(study_file: Callable[..., Path], trials: Trials, out: Path) -> None:
    spec = load_spec(str(study_file(("trials = 2", "trials = 1"))))
    how = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    run_in_process(spec, how)
    failing = load_study("tiny", default_storage_url(out))
    ended(failing, TrialState.FAIL)
    retry_trials(failing, [1])
    run_in_process(spec, how)
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials()[2].params == {"optimizer.lr": 0.004, "model.width": trials()[2].params["model.width"]}
