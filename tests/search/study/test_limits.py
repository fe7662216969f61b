"""Models over a limit: never trained, and the search learns to avoid them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

from models import DnCNNConfig
from search.database import TrialFacts, begin_trial, default_storage_url, open_study, set_constraints
from search.errors import UserError
from search.inference import Precision, cost
from search.launch import run_in_process
from search.samplers import make_sampler
from search.study import LimitsConfig, StudySpec, load_spec
from search.worker import RunOptions

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]
CPU = torch.device("cpu")
# Of the tiny study's networks, width 4 has 229 parameters and width 6 has 445.
WIDTH_4_ONLY = "[limits]\nparameters = 300\n\n[recipe]\nsteps = 8"


def search(path: Path, out: Path, **changes: Any) -> None:
    spec = load_spec(str(path)).with_changes(**changes)
    run_in_process(spec, RunOptions(storage=default_storage_url(out), out=out, device=CPU, quiet=True))


def test_model_over_a_limit_ends_as_pruned_without_a_step(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(("[recipe]\nsteps = 8", WIDTH_4_ONLY)), out, trials=4)
    small = [trial for trial in trials() if trial.params["model.width"] == 4]
    large = [trial for trial in trials() if trial.params["model.width"] == 6]
    assert small
    assert large
    for trial in small:
        assert trial.state == TrialState.COMPLETE
        assert trial.constraints["parameters"] == trial.user_attrs["parameters"] / 300 - 1 < 0
    for trial in large:
        assert trial.state == TrialState.PRUNED
        parameters = trial.user_attrs["parameters"]
        assert trial.user_attrs["ended"] == f"over the limits: {parameters} parameters (limit 300)"
        assert trial.constraints["parameters"] == parameters / 300 - 1 > 0
        assert trial.user_attrs["steps_done"] == 0
        assert not trial.intermediate_values


def test_every_trial_records_time_and_memory_of_restoring(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(), out, trials=2, ladder={"rungs": 1, "factor": 2})
    for trial in trials():
        assert trial.user_attrs["ms_per_megapixel"] > 0
        assert trial.user_attrs["mb_per_megapixel"] > 0
        assert not trial.constraints


def test_known_recipe_over_a_limit_is_told_as_such(
    study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = '[[first]]\nname = "by hand"\n"model.width" = 6'
    path = study_file(("[recipe]\nsteps = 8", WIDTH_4_ONLY), more=known)
    spec = load_spec(str(path)).with_changes(trials=1)
    run_in_process(spec, RunOptions(storage=default_storage_url(out), out=out, device=CPU))
    assert "trial 0 (by hand): over the limits: 445 parameters (limit 300)" in capsys.readouterr().out


def test_time_and_memory_limits_refuse_too(study_file: StudyFile, out: Path, trials: Trials) -> None:
    search(study_file(), out, trials=1, limits={"ms_per_megapixel": 1e-6, "memory_mb": 1e-6})
    (trial,) = trials()
    assert trial.state == TrialState.PRUNED
    assert "ms per megapixel (limit 1e-06)" in trial.user_attrs["ended"]
    assert "MB per megapixel (limit 1e-06)" in trial.user_attrs["ended"]
    assert set(trial.constraints) == {"ms_per_megapixel", "memory_mb"}


def test_misspelt_limit_is_named(study_file: StudyFile) -> None:
    path = study_file(("[recipe]\nsteps", "[limits]\nparameter = 300\n\n[recipe]\nsteps"))
    with pytest.raises(UserError, match=r"limits.parameter: unknown setting; did you mean parameters"):
        load_spec(str(path))


@pytest.mark.parametrize("limit", [{"gmacs": 0}, {"parameters": -1}, {"memory_mb": float("nan")}])
def test_limit_that_nothing_keeps_is_refused(limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"greater than 0|finite"):
        LimitsConfig.model_validate(limit)


def test_within_asks_for_every_limited_fact() -> None:
    bounds = LimitsConfig(parameters=100, ms_per_megapixel=5.0)
    assert bounds.within(TrialFacts({"parameters": 100, "ms_per_megapixel": 5.0}))
    assert not bounds.within(TrialFacts({"parameters": 101, "ms_per_megapixel": 5.0}))
    assert not bounds.within(TrialFacts({"parameters": 100}))  # of a trial that never measured its speed
    assert LimitsConfig().within(TrialFacts())


def test_peak_counts_what_lives_at_the_same_time() -> None:
    image = torch.ones(10, 100)  # of 4000 bytes

    def chain() -> None:
        first = image * 2
        second = first + 1  # two live
        del first
        third = second.view(100, 10) - 1  # two again: a view is no copy
        third.add_(1)

    assert cost.peak_bytes(chain) == 8000
    assert cost.peak_bytes(lambda: [image * n for n in range(5)]) == 20000


def test_memory_of_a_plain_network_is_two_layers_of_features() -> None:
    model = DnCNNConfig(channels=1, layers=4, width=16, batch_norm=False)
    found = cost.measure_inference_cost(model.build(), 1, CPU)["mb_per_megapixel"]
    weights = sum(p.numel() for p in model.build().parameters()) * 4
    # What a layer reads and what it writes: 16 channels of 4 bytes each, for 10^6 pixels.
    assert found * 2**20 == pytest.approx(2 * 16 * 4 * 1e6 + weights, rel=0.05)


def test_time_per_megapixel_is_the_median_of_three_runs_after_a_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    durations = iter([9.0, 0.2, 7.0, 0.1])

    class Slow(nn.Module):
        def forward(self, degraded: Tensor) -> Tensor:
            nonlocal now
            now += next(durations)
            return degraded

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now)
    image = torch.zeros(3, 50, 40)
    found = cost.ms_per_megapixel(Slow(), image, Precision("fp32", CPU))
    assert found == pytest.approx(0.2 * 1000 / 0.002)


def allowed_draws(spec: StudySpec, *, constrained: bool) -> int:
    """How many of 30 draws of the study's own sampler fall into the small corner of the square that is allowed."""
    opened, found = optuna.create_study(direction="maximize"), 0
    for number in range(30):
        opened.sampler = make_sampler(spec, number)
        trial = opened.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        excess = {"x": x / 0.1 - 1, "y": y / 0.1 - 1}
        if constrained:
            set_constraints(trial, excess)
        if max(excess.values()) > 0:
            opened.tell(trial, state=TrialState.PRUNED)
        else:
            found += 1
            opened.tell(trial, x + y)  # the best lies at the edge
    return found


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_sampler_draws_fewer_models_over_the_limits_when_told_how_far_over_they_are(
    study_file: StudyFile, sampler: str
) -> None:
    square = {name: {"low": 0.0, "high": 1.0} for name in ("x", "y")}
    spec = load_spec(str(study_file())).model_copy(update={"recipe": square, "sampler": sampler})
    specs = [spec.model_copy(update={"seed": seed}) for seed in range(4)]
    told = [allowed_draws(spec, constrained=True) for spec in specs]
    untold = [allowed_draws(spec, constrained=False) for spec in specs]
    assert min(told) >= 3
    if sampler == "tpe":  # the other one takes trials without a score for bad ones
        assert min(untold) <= 1  # by chance alone a search may never find what is allowed
    assert sum(told) > (1.5 if sampler == "tpe" else 1.1) * sum(untold)


def test_constraint_that_is_set_stays(study_file: StudyFile, out: Path) -> None:
    spec = load_spec(str(study_file()))
    opened = open_study(spec, default_storage_url(out), continue_with_changes=False, out=out)
    trial = begin_trial(opened, 99, lambda number: optuna.samplers.RandomSampler(seed=number))
    set_constraints(trial, {"parameters": 0.5})
    set_constraints(trial, {"parameters": -0.5, "gmacs": -1.0})
    assert trial.constraints == {"parameters": 0.5, "gmacs": -1.0}
