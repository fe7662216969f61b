"""Plans: the simulated search follows the policy of the real one, and the plan shows its results."""

import json
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest
import torch
from optuna.trial import FrozenTrial
from rich.console import Console

from data.sources import Split
from search.__main__ import main, parse
from search.database import default_storage_url
from search.launch import run_in_process
from search.plan import plan, show_plan
from search.plan.contention import busy_workers
from search.plan.cost_model import CostModel, TrainingCost
from search.plan.simulator import simulate, simulate_many
from search.study import StudySpec, load_spec, parse_duration
from search.trial import Pace
from search.trial.timing import Timer
from search.worker import (
    InterpolatedCost,
    ProbeConfig,
    ProbeConfigs,
    ProbeResult,
    RunOptions,
    probe_configs,
    small_median_large,
    typical_speed,
)

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]
CPU = torch.device("cpu")
OPEN_LENGTH = (("steps = 8\n", ""), ("rungs = 0", "rungs = 2, factor = 4"))


def cost(per_step: float = 1.0, steps: int = 16, **changes: Any) -> TrainingCost:
    """A training of 16 steps of a second, scored for nothing."""
    free = {
        "per_score": 0.0,
        "at_end": 0.0,
        "per_start": 0.0,
        "first_start": 0.0,
        "per_repeat": 0.0,
        "shares": (1.0,),
    }
    return TrainingCost(**{"steps": steps, "per_step": per_step, **free, **changes})


def spec_of(path: Path, **changes: Any) -> StudySpec:
    return load_spec(str(path)).with_changes(**changes)


@pytest.fixture
def spec(study_file: StudyFile) -> StudySpec:
    return load_spec(str(study_file()))


def test_without_rungs_as_many_trials_start_as_fit_into_the_time(spec: StudySpec) -> None:
    unhurried = spec.with_changes(trials=1000, timeout=165.0)
    search = simulate(unhurried, [], [cost()], setup_seconds=5.0, seed=0)
    # After 5 seconds to open, trials of 16 seconds while one more ends in time: 5 + 10 x 16 = 165.
    assert (search.begun, search.reached, search.seconds) == (10, {100: 10}, 165.0)


def test_known_recipes_come_first_and_cost_what_they_cost(spec: StudySpec) -> None:
    two = spec.with_changes(trials=3, timeout=1e6)
    search = simulate(two, [cost(100.0), cost(10.0)], [cost()], setup_seconds=0.0, seed=0)
    assert search.seconds == 16 * (100 + 10 + 1)


def test_simulated_ladder_promotes_one_in_factor_and_finishes_the_leader(spec: StudySpec) -> None:
    many = spec.with_changes(trials=64, timeout=1e6, ladder={"rungs": 2, "factor": 4})
    search = simulate(many, [], [cost()], setup_seconds=0.0, seed=0)
    assert search.begun == search.reached[6] == 64
    # One in four goes on, and those that looked good while few were there: never fewer.
    assert 16 <= search.reached[25] <= 32
    assert 4 <= search.reached[100] <= 16
    training_seconds = 64 * 1 + search.reached[25] * 3 + search.reached[100] * 12
    assert search.seconds == training_seconds


def test_last_stretch_fills_the_time_that_is_left(spec: StudySpec) -> None:
    clocked = spec.with_changes(trials=1000, timeout=1000.0, ladder={"rungs": 2, "factor": 4})
    searches = simulate_many(clocked, [], [cost(steps=160)], setup_seconds=0.0, count=30)
    assert all(950 < search.seconds <= 1000 for search in searches)


def test_search_of_twice_the_time_with_trainings_twice_as_long_tries_as_many(spec: StudySpec) -> None:
    ladder = {"rungs": 3, "factor": 4}
    begun = [
        simulate(
            spec.with_changes(trials=1000, timeout=3000.0 * times, ladder=ladder),
            [],
            [cost(steps=640 * times)],
            setup_seconds=0.0,
            seed=1,
        ).begun
        for times in (1, 2)
    ]
    assert begun[0] == begun[1]


def test_trial_over_its_own_time_ends_there(spec: StudySpec) -> None:
    short = spec.with_changes(trials=3, timeout=1e6, trial_timeout=10.0)
    search = simulate(short, [], [cost()], setup_seconds=0.0, seed=0)
    assert (search.seconds, search.reached) == (30.0, {100: 0})


def test_time_between_rungs_counts_the_scores_between_its_rungs() -> None:
    scored = cost(steps=8, per_score=100.0, at_end=1000.0, per_start=0.5, shares=(0.25, 0.5, 0.75, 1.0))
    assert scored.seconds_between(0.0, 0.25) == 2 + 100 + 0.5
    assert scored.seconds_between(0.25, 1.0) == 6 + 300 + 1000 + 0.5


def test_simulated_search_goes_as_the_real_one(study_file: StudyFile, out: Path, trials: Trials) -> None:
    ladder = {"rungs": 2, "factor": 2}
    tiny = spec_of(study_file(), trials=4, ladder=ladder)
    run_in_process(tiny, RunOptions(storage=default_storage_url(out), out=out, device=CPU, quiet=True))
    real = {p: sum(p in t.intermediate_values for t in trials()) for p in (25, 50, 100)}
    searches = simulate_many(tiny, [], [cost(0.01, steps=8)], setup_seconds=0.0, count=200)
    assert real[25] == 4
    assert real in [dict(search.reached) for search in searches]


def test_workers_without_rungs_make_a_trial_each_at_a_time(spec: StudySpec) -> None:
    unhurried = spec.with_changes(trials=1000, timeout=165.0)
    search = simulate(unhurried, [], [cost()], setup_seconds=5.0, seed=0, workers=3)
    assert (search.begun, search.reached, search.seconds) == (30, {100: 30}, 165.0)
    few = spec.with_changes(trials=7, timeout=1e6)
    search = simulate(few, [cost(100.0)], [cost()], setup_seconds=0.0, seed=0, workers=2)
    # The known recipe takes one worker 1600 seconds; the other makes the six that are left meanwhile.
    assert (search.begun, search.reached, search.seconds) == (7, {100: 7}, 1600.0)


def test_rungs_at_the_same_step_are_reached_together(spec: StudySpec) -> None:
    ladder = {"rungs": 3, "factor": 3}
    short = spec.with_changes(trials=4, timeout=1e6, ladder=ladder)
    search = simulate(short, [], [cost(steps=10)], setup_seconds=0.0, seed=0)
    assert search.reached[4] == search.reached[11] == 4  # both at the first step
    # After 10 seconds a tenth of a training is done: by that, a 27th of the next one ends within 15 seconds.
    hurried = spec.with_changes(trials=9, timeout=30.0, finale=0.5, ladder=ladder)
    search = simulate(hurried, [], [cost(per_step=10.0, steps=10)], setup_seconds=0.0, seed=0)
    assert search.begun == 1 + 1


def test_worker_without_work_waits_for_scores_that_may_promote_someone(spec: StudySpec) -> None:
    pair = spec.with_changes(trials=2, timeout=1e6, ladder={"rungs": 1, "factor": 2})
    search = simulate(pair, [cost(1.0), cost(3.0)], [], setup_seconds=0.0, seed=0, workers=2)
    # Half of a training each, after 8 and 24 seconds; the better one goes on then, and is all there is to finish.
    assert search.reached == {50: 2, 100: 1}
    assert search.seconds in (pytest.approx(24 + 8, abs=1.0), 24 + 24)


def test_each_worker_finishes_a_leader_where_the_clock_decides(spec: StudySpec) -> None:
    clocked = spec.with_changes(trials=1000, timeout=1000.0, ladder={"rungs": 2, "factor": 4})
    for workers in (1, 2, 4):
        searches = simulate_many(clocked, [], [cost(steps=160)], 0.0, 20, workers=workers)
        assert all(search.reached[100] >= workers for search in searches)
        assert all(950 < search.seconds <= 1000 for search in searches)
    begun = [
        simulate(clocked, [], [cost(steps=160)], 0.0, seed=0, workers=workers).begun for workers in (1, 2, 4)
    ]
    assert begun[0] < begun[1] < begun[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_repeats_are_shared_out_and_waited_for(spec: StudySpec, workers: int) -> None:
    confirmed = spec.with_changes(
        trials=4, timeout=1e6, ladder={"rungs": 1, "factor": 4}, confirm_seeds=2, finalists=2
    )
    beside = cost(per_repeat=100.0)
    search = simulate(confirmed, [], [beside], setup_seconds=0.0, seed=0, workers=workers)
    # Four first rungs of 4 steps, and the best goes on to its end; the next two are trained again up to that
    # rung, twice, and judged for 100 seconds.
    assert search.reached == {25: 4, 100: 1}
    assert search.seconds == pytest.approx(4 * 4 / workers + 12 + 4 * (4 + 100) / workers, abs=1.0)


def test_those_who_make_more_steps_of_the_same_compute_are_promoted_more_often(spec: StudySpec) -> None:
    many = spec.with_changes(trials=2, timeout=1e6, ladder={"rungs": 1, "factor": 2})
    one, other = cost(steps=1000), cost(steps=10)
    searches = [simulate(many, [one, other], [], setup_seconds=0.0, seed=seed) for seed in range(200)]
    assert 0.7 < sum(search.winner_steps == 1000 for search in searches) / len(searches) < 0.95


def test_sampler_of_neighbours_stays_in_the_best_branch_two_times_of_three(spec: StudySpec) -> None:
    near = spec.with_changes(trials=64, timeout=1e12, sampler="neighbours")
    filters = [cost(steps=0, at_end=1000.0**n, branch=n) for n in range(4)]
    most = []
    for seed in range(10):
        search = simulate(near, filters, filters, setup_seconds=0.0, seed=seed)
        visits = [int(search.seconds) // 1000**n % 1000 for n in range(4)]
        assert sum(visits) == 64
        assert min(visits) >= 4
        most.append(max(visits))
    assert fmean(most) == pytest.approx(1 + 40, abs=6)  # less where two are about as good


def test_scale_is_straight_between_logarithms_and_in_proportion_beyond() -> None:
    scale = InterpolatedCost([(1.0, 10.0), (100.0, 1000.0), (10.0, 50.0)])
    assert scale.at(10.0) == pytest.approx(50.0)
    assert scale.at(math.sqrt(10.0)) == pytest.approx(math.sqrt(10.0 * 50.0))
    assert scale.at(200.0) == pytest.approx(2000.0)
    assert scale.at(0.1) == pytest.approx(10.0)
    assert (
        InterpolatedCost([(0.0, 1.0), (0.0, 9.0), (0.0, 2.0)]).at(0.0) == 2.0
    )  # filters: nothing tells them apart


def test_branches_are_the_choices_that_have_settings_of_their_own() -> None:
    filters = load_spec("classical")
    recipes = ProbeConfigs(filters, channels=1)
    forks = plan._branching_settings(recipes.all)
    assert forks == {"model.filter"}
    kinds = [probe.config.model.filter.kind for probe in recipes.all]  # type: ignore[union-attr]
    assert [probe.values["model.filter"] for probe in recipes.all] == kinds


def test_recipes_are_told_apart_by_their_number(study_file: StudyFile) -> None:
    known = '[[first]]\nname = "by hand"\n"model.width" = 6'
    recipes = ProbeConfigs(load_spec(str(study_file(more=known))), channels=1)
    assert [probe.number for probe in recipes.all] == list(range(1 + probe_configs.DRAWS))


def test_busy_workers_train_beside_us_and_their_time_to_start_is_known(
    study_file: StudyFile, out: Path
) -> None:
    config = ProbeConfigs(spec_of(study_file()), channels=1).drawn[0].config
    before = {child.pid for child in psutil.Process().children()}
    with busy_workers(config, out, CPU, [CPU]) as seconds:
        (other,) = {child.pid for child in psutil.Process().children()} - before
        assert seconds > 0.1
        busy = psutil.Process(other).cpu_percent(interval=0.3)
        assert busy > 5
    assert not psutil.pid_exists(other)


@pytest.mark.usefixtures("measured")
def test_plan_is_for_as_many_workers_as_asked(
    study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, two = (planned(study_file(*OPEN_LENGTH), out, n, timeout=600.0, trials=1000) for n in (0, 1))
    assert (alone.workers, two.workers) == (1, 2)
    assert two.bought.begun.median > 1.5 * alone.bought.begun.median
    show_plan(two, Console(width=100))
    assert "2 workers; one was measured while the other one worked, cpu" in capsys.readouterr().out


def test_recipes_are_the_known_ones_and_the_same_random_ones(study_file: StudyFile) -> None:
    known = '[[first]]\nname = "by hand"\n"model.width" = 6\n[first.recipe.crops]\nbatch = 3\npatch = 16'
    spec = load_spec(str(study_file(more=known)))
    first, second = ProbeConfigs(spec, channels=1), ProbeConfigs(spec, channels=1)
    (sample,) = first.known
    assert (sample.name, sample.config.crops.batch) == ("by hand", 3)
    assert [s.config for s in first.drawn] == [s.config for s in second.drawn]
    assert len(first.drawn) == probe_configs.DRAWS
    works = [s.work for s in first.drawn]
    three = small_median_large(first.drawn)
    assert min(works) == three["small"].work < three["large"].work == max(works)  # there are two widths


def test_typical_speed_is_the_median_where_there_is_time_to_measure(study_file: StudyFile) -> None:
    width = ("{ choices = [4, 6] }", "{ low = 4, high = 40 }")
    known = '[[first]]\nname = "by hand"\n"model.width" = 5'
    recipes = ProbeConfigs(load_spec(str(study_file(width, more=known))), channels=1)
    asked: list[float] = []

    def seconds(probe: ProbeConfig) -> float:
        asked.append(probe.work)
        return {1: 4.0, 2: 1.0, 3: 2.0, 4: 7.0}[len(asked)] * probe.work

    assert typical_speed(recipes, seconds, allowed=1e9) == pytest.approx(1 / 2.0)
    assert asked[1] < asked[2] < asked[3]
    asked.clear()
    assert typical_speed(recipes, seconds, allowed=0.0) == pytest.approx(1 / 4.0)
    assert len(asked) == 1


def test_slow_steps_are_timed_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("search.trial.timing.time.monotonic", lambda: now)

    def steps_of(duration: float) -> tuple[int, float]:
        nonlocal now
        timer = Timer(patience=1.0)
        timer.begun(0, [], 0.0)
        for step in range(1, 9):
            now += duration + (5 * duration if step == 1 else 0)  # the first compiles
            timer.stepped(step, 8, torch.zeros(()))
            if timer.stop_requested():
                break
        return len(timer.times), timer.seconds_per_step()

    assert steps_of(0.01) == (8, pytest.approx(0.01))
    assert steps_of(3.0) == (2, pytest.approx(3.0))


@pytest.fixture(autouse=True)
def no_busy_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes take seconds to start: a test of their own has them."""
    monkeypatch.setattr(plan, "busy_workers", lambda *_: nullcontext(0.0))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe trains a step in half a second, and restores in no time."""

    def measure(sample: ProbeConfig, split: Split, device: torch.device) -> ProbeResult:
        return ProbeResult(sample, Pace(0.5, 0.0, 3 * 2**20), 0.0)

    monkeypatch.setattr(plan, "measure_probe", measure)
    monkeypatch.setattr("search.plan.cost_model._compare_seconds", lambda pairs: 0.0)
    monkeypatch.setattr("search.plan.cost_model._seconds_to_build", lambda config: 0.0)
    monkeypatch.setattr(plan, "_seconds_to_write", lambda spec, out: 0.0)


def planned(path: Path, out: Path, others: int = 0, **changes: Any) -> plan.Plan:
    out.mkdir(exist_ok=True)
    how = RunOptions(storage="", out=out, device=CPU, quiet=True)
    return plan.make_plan(spec_of(path, **changes), how, Console(quiet=True), [CPU] * others)


@pytest.mark.usefixtures("measured")
def test_plan_has_the_price_of_a_study_that_fixes_length_and_trials(study_file: StudyFile, out: Path) -> None:
    found = planned(study_file(), out)
    assert found.as_written_seconds is not None
    assert found.as_written_seconds.median == pytest.approx(2 * 8 * 0.5, abs=1.0)  # and opening the images
    assert found.bought.begun.median == 2
    assert planned(study_file(*OPEN_LENGTH), out).as_written_seconds is None


@pytest.mark.usefixtures("measured")
def test_plan_gives_length_and_rungs_of_the_ladder(study_file: StudyFile, out: Path) -> None:
    found = planned(study_file(*OPEN_LENGTH), out, timeout=600.0, trials=1000)
    for size in found.sizes.values():
        # The last three quarters of a training take half of ten minutes: 800 steps of half a second ...
        assert size.seconds[100] == pytest.approx(0.5 * size.steps[100], rel=0.01)
        assert size.steps[25] == pytest.approx(size.steps[100] / 4, abs=1)
        assert size.steps[6] == pytest.approx(size.steps[100] / 16, abs=1)
    assert found.sizes["median"].steps[100] == pytest.approx(800, rel=0.5)  # ... of a model of typical speed
    assert found.search_seconds == 300
    assert found.bought.enough
    assert found.advice == ()


@pytest.mark.usefixtures("measured")
def test_budget_that_is_too_small_is_called_so_with_one_that_would_do(
    study_file: StudyFile, out: Path
) -> None:
    found = planned(study_file(*OPEN_LENGTH), out, timeout=20.0, trials=1000)
    assert not found.bought.enough
    (line,) = (line for line in found.advice if "too small" in line)
    assert re.search(r"makes \d steps? before it is judged first", line)
    budget = line.split("--budget ")[1].split()[0]
    seconds = parse_duration(budget)
    assert isinstance(seconds, float)
    assert seconds > 20
    assert planned(study_file(*OPEN_LENGTH), out, timeout=seconds, trials=1000).bought.enough


@pytest.mark.usefixtures("measured")
def test_recipes_over_the_limits_are_named_and_not_counted(study_file: StudyFile, out: Path) -> None:
    known = '[[first]]\nname = "by hand"\n"model.width" = 6'
    found = planned(study_file(more=known), out, limits={"parameters": 300})
    drawn = sum(s.config.model.width == 6 for s in ProbeConfigs(spec_of(study_file()), 1).drawn)  # type: ignore[union-attr]
    assert found.over_limits == ("by hand", f"{drawn} random recipes")


def test_recipe_that_had_to_go_in_parts_is_named(
    study_file: StudyFile, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(sample: ProbeConfig, split: Split, device: torch.device) -> ProbeResult:
        notes = ("out of memory at step 0: batches of 2 in 2 parts from here",) if sample.name else ()
        return ProbeResult(sample, Pace(0.5, 0.0, 1, notes), 0.0)

    monkeypatch.setattr(plan, "measure_probe", measure)
    known = '[[first]]\nname = "by hand"\n"model.width" = 6'
    assert planned(study_file(more=known), out).too_large == ("by hand",)


def test_memory_of_what_was_not_measured_grows_with_its_work(study_file: StudyFile, split: Split) -> None:
    width = ("{ choices = [4, 6] }", "{ low = 4, high = 64 }")
    spec = load_spec(str(study_file(width)))
    three = list(small_median_large(ProbeConfigs(spec, 1).drawn).values())
    found = [ProbeResult(s, Pace(1.0, 0.0, int(1e9 * s.work)), 0.1) for s in three[:2]]
    costs = CostModel(spec, split, found, teramacs=None)
    assert costs.memory(three[2]) == pytest.approx(1e9 * three[2].work, rel=1e-3)
    assert costs.seconds_per_step(three[0]) == 1.0


def test_command_prints_a_table_or_json_alone(
    study_file: StudyFile,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "MEASURE_SECONDS", 0.0)
    monkeypatch.setattr(probe_configs, "DRAWS", 5)
    words = ["plan", str(study_file(*OPEN_LENGTH)), "--budget", "30s", "--out", str(out), "--device", "cpu"]
    assert main([*words, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budget_seconds"] == 30
    assert set(found["sizes"]) == {"small", "median", "large"}
    assert found["sizes"]["median"]["seconds_per_step"] > 0
    assert found["sizes"]["large"]["memory_mb"] > 0
    assert main([*words, "--json", str(tmp_path / "plan.json")]) == 0
    text = capsys.readouterr().out
    assert "trials begun" in text
    assert "up to 25 %" in text
    assert json.loads((tmp_path / "plan.json").read_text("utf-8"))["study"] == "tiny"


@pytest.mark.parametrize("flag", ["--timeout", "--budget"])
@pytest.mark.parametrize("command", [["run", "--study", "kbnet"], ["plan", "kbnet"]])
def test_budget_and_timeout_are_one_flag(command: list[str], flag: str) -> None:
    assert parse([*command, flag, "2h"]).timeout == "2h"


def test_stopped_plan_leaves_no_trace(
    study_file: StudyFile, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> ProbeResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "measure_probe", interrupted)
    assert main(["plan", str(study_file()), "--out", str(out)]) == 130
    assert capsys.readouterr().err.startswith("stopped at once")
    assert not (out / "search.db").exists()
