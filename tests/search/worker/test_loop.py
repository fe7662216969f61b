"""Searches by the loop of a worker: pauses at rungs, the last stretch, and what is left in the database."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file

from search.database import default_storage_url, leases, load_study, open_study
from search.database.trial_facts import GOAL
from search.launch import SearchOutcome, run_in_process
from search.samplers.make import SamplerWithAllTrials
from search.scheduler import Action, Prune, Snapshot, policy
from search.study import load_spec
from search.trial import TrialConfig, train
from search.worker import RunOptions, loop, open_data, run_trial, training_budget
from tests.benchmarks.by_hand import Silent

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]
CPU = torch.device("cpu")
LADDER = {"rungs": 2, "factor": 2}  # 25 %, 50 %, the end: steps 2, 4 and 8
ONE_SIZE = ("{ choices = [4, 6] }", "4")
DSD = '[recipe.sparsity]\nkind = "dsd"\ndense_share = 0.3\nsparse_share = 0.4'


def search(path: Path, out: Path, **changes: Any) -> SearchOutcome:
    spec = load_spec(str(path)).with_changes(**{"ladder": LADDER, **changes})
    return run_in_process(spec, RunOptions(storage=default_storage_url(out), out=out, device=CPU, quiet=True))


def complete(trials: Trials) -> FrozenTrial:
    """The one trial that was trained to its end."""
    (winner,) = (trial for trial in trials() if trial.state == TrialState.COMPLETE)
    return winner


def trained_at_once(trial: FrozenTrial, path: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that the stored settings of a trial give without any pause."""
    config = TrialConfig.model_validate_json(trial.user_attrs["config"])
    split = open_data(load_spec(str(path)), folder)
    return load_file(train(config, split, CPU, folder / "at-once", Silent()).weights)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_best_go_on_and_the_others_end_as_pruned_where_they_stood(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    outcome = search(study_file(), out, trials=4)
    by_state = {state: [t for t in trials() if t.state == state] for state in TrialState}
    (winner,) = by_state[TrialState.COMPLETE]
    assert len(by_state[TrialState.PRUNED]) == 3
    assert outcome.best_number == winner.number
    assert list(winner.intermediate_values) == [25, 50, 75, 100]
    assert winner.user_attrs["steps_done"] == 8
    at_first = sorted((t.intermediate_values[25] for t in trials()), reverse=True)
    higher = [t for t in trials() if 50 in t.intermediate_values]
    assert sorted((t.intermediate_values[25] for t in higher), reverse=True) == at_first[: len(higher)]
    for trial in by_state[TrialState.PRUNED]:
        rung = max(trial.intermediate_values)
        assert trial.user_attrs["steps_done"] == {25: 2, 50: 4}[rung]
        assert trial.user_attrs["ended"] == f"beaten at {rung} %: {trial.intermediate_values[rung]:.2f} dB"
        folder = out / "tiny" / f"trial-{trial.number:04d}"
        assert [path.name for path in folder.iterdir()] == ["sample.png"]


@pytest.mark.parametrize(
    "more", ["", DSD, '[recipe.schedule]\nkind = "cosine"'], ids=["dense", "dsd", "cosine"]
)
def test_trial_with_pauses_is_bit_equal_to_one_without(
    more: str, study_file: StudyFile, out: Path, trials: Trials, tmp_path: Path
) -> None:
    path = study_file(ONE_SIZE, more=more)
    search(path, out, trials=2)
    winner = complete(trials)
    paused = load_file(out / "tiny" / f"trial-{winner.number:04d}" / "best.safetensors")
    assert equal(paused, trained_at_once(winner, path, tmp_path))


CROPS = "crops = { batch = 2, patch = 8 }"
GROWING = "crops = { batch = 2, patch = 8, before = [{ share = 0.75, batch = 1, patch = 4 }] }"


@pytest.mark.parametrize(
    ("crops", "more"),
    [
        (CROPS, '[recipe.schedule]\nkind = "constant_cooldown"\nwarmup = 0.125'),
        (CROPS, '[recipe.schedule]\nkind = "exponential"'),
        (CROPS, DSD),
        (GROWING, ""),
    ],
    ids=["constant", "exponential", "dsd", "growing crops"],
)
def test_last_stretch_is_made_to_fit_the_time_and_equals_a_run_of_that_length(
    crops: str,
    more: str,
    study_file: StudyFile,
    out: Path,
    trials: Trials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = iter([24, 14, 16])
    monkeypatch.setattr(policy, "affordable_steps", lambda trial, left: next(lengths))
    monkeypatch.setattr(policy, "ends_in_time", lambda snapshot, *_: len(snapshot.trials) < 3)
    path = study_file(ONE_SIZE, (CROPS, crops), more=more)
    search(path, out, trials=9)
    winner = complete(trials)
    config = TrialConfig.model_validate_json(winner.user_attrs["config"])
    assert (config.total_steps, winner.user_attrs["steps_done"]) == (16, 16)
    # After 4 of 8 steps it was to have 24; after 3 in 10 of the others 14; after three quarters of what was left 16.
    assert winner.user_attrs["length"][0] == 16
    assert [step for step, _ in winner.user_attrs["length"][1]] == [4, 10, 13]
    assert config.planned_steps == 8
    paused = load_file(out / "tiny" / f"trial-{winner.number:04d}" / "best.safetensors")
    assert equal(paused, trained_at_once(winner, path, tmp_path))


def test_last_stretch_has_some_steps_however_short_the_time(
    study_file: StudyFile, out: Path, trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "affordable_steps", lambda trial, left: 1)
    monkeypatch.setattr(policy, "ends_in_time", lambda snapshot, *_: len(snapshot.trials) < 1)
    path = study_file(("steps = 8", "steps = 60"), ONE_SIZE)
    search(path, out, trials=9, ladder={"rungs": 1, "factor": 2})
    winner = complete(trials)  # 30 steps were done: with 15 % of all for the last stretch there are 36
    assert winner.user_attrs["length"][0] == winner.user_attrs["steps_done"] == 36
    paused = load_file(out / "tiny" / f"trial-{winner.number:04d}" / "best.safetensors")
    assert equal(paused, trained_at_once(winner, path, tmp_path))


def test_time_decides_the_length_where_the_recipe_leaves_it_open(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_budget, "typical_speed", lambda *_: 2e-7)
    search(study_file(("steps = 8\n", ""), ("rungs = 0", "rungs = 1"), ONE_SIZE), out, trials=2, timeout=60.0)
    # Half of 60 s at 2e-7 teramacs a second, for the half of a training that lies above the rung at 50 %.
    opened = load_study("tiny", default_storage_url(out))
    assert opened.user_attrs["full_teramacs"] == pytest.approx(12e-6)
    facts = complete(trials).user_attrs
    config = TrialConfig.model_validate_json(facts["config"])
    assert facts["steps"] == round(
        12e-6 / config.teramacs_per_step
    )  # both trials were made: no clock decides


def test_search_that_died_in_the_last_stretch_brings_it_to_its_end(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_on = run_trial.Worker.work_on

    def die_at_the_top(self: Any, trial: optuna.Trial, pause_at: int | None = None) -> None:
        if trial.user_attrs[GOAL] == 100:
            leases.release_trial(self.study, trial)
            raise KeyboardInterrupt
        work_on(self, trial, pause_at)

    path = study_file()
    with monkeypatch.context() as patched:
        patched.setattr(run_trial.Worker, "work_on", die_at_the_top)
        with pytest.raises(KeyboardInterrupt):
            search(path, out, trials=2)
    assert [t.state for t in trials()] == [TrialState.WAITING] * 2
    search(path, out, trials=2)
    assert sorted(t.state.name for t in trials()) == ["COMPLETE", "PRUNED"]


def test_trials_with_too_many_better_ones_end_before_the_search_does(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[int] = []
    decide = policy.next_action

    def counting(snapshot: Snapshot, elapsed: float) -> Action:
        action = decide(snapshot, elapsed)
        if not isinstance(action, Prune):
            paused.append(sum(trial.is_paused for trial in snapshot.trials))
        return action

    monkeypatch.setattr(loop, "next_action", counting)
    search(study_file(), out, trials=6, ladder={"rungs": 2, "factor": 4}, keep=1)
    assert max(paused) == 2  # one at each rung
    assert sum(t.state == TrialState.COMPLETE for t in trials()) == 1


def test_policy_is_asked_again_where_another_worker_was_faster_to_take_a_trial(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, missed = leases.claim_trial, set[tuple[int, int]]()

    def slow(study: Any, waiting: FrozenTrial, *args: Any, **facts: Any) -> Any:
        """Too late once for each trial at each rung, and by then it waits again."""
        turn = (waiting.number, facts.get(GOAL, 0))
        if turn in missed:
            return take(study, waiting, *args, **facts)
        missed.add(turn)
        return None

    monkeypatch.setattr(loop, "claim_trial", slow)
    monkeypatch.setattr(run_trial, "claim_trial", slow)
    search(study_file(), out, trials=4)
    assert {goal for _, goal in missed} == {0, 50, 100}
    assert sorted(t.state.name for t in trials()) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]


def test_last_stretch_has_no_limit_of_a_single_trial(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []

    class Noting(run_trial.TrialCallback):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            limits.append(self.limit_seconds)

    monkeypatch.setattr(run_trial, "TrialCallback", Noting)
    search(study_file(), out, trials=1, trial_timeout=60.0)
    assert limits == [60.0, None]


def test_sampler_sees_a_waiting_trial_as_pruned_at_its_rung(study_file: StudyFile, out: Path) -> None:
    spec = load_spec(str(study_file()))
    opened = open_study(spec, default_storage_url(out), continue_with_changes=False, out=out)
    seen: list[tuple[TrialState, dict[int, float]]] = []

    class Looking(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            others = study.get_trials(deepcopy=False)[:-1]
            seen.extend((t.state, dict(t.intermediate_values)) for t in others)

    for _ in range(2):
        trial = leases.begin_trial(opened, 99, lambda number: SamplerWithAllTrials(Looking(seed=number)))
        trial.suggest_categorical("model.width", [4, 6])
        trial.report(20.0, 25)
        leases.release_trial(opened, trial)
    assert seen == [(TrialState.PRUNED, {25: 20.0})]


def test_masked_trial_that_pauses_stands_for_its_best_before(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(ONE_SIZE, more=DSD), out, trials=2)
    winner = complete(trials)  # steps 3 to 6 are under a mask, and it paused after 2 and 4
    scores = [rung["psnr_db"] for rung in json.loads(winner.user_attrs["rungs"])]
    assert winner.intermediate_values == {25: scores[0], 50: scores[0], 100: scores[3]}
