"""TrialConfig: JSON and back, rungs, and training lengths by compute."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from search.trial import TrialConfig


def test_config_goes_to_json_and_back_unchanged(config: Callable[..., TrialConfig]) -> None:
    for changes in (
        {},
        {"steps": {"teramacs": 0.5}, "sparsity": {"kind": "dsd"}, "schedule": {"kind": "cosine_hold"}},
        {"model": {"kind": "kbnet_s"}, "loss": {"kind": "charbonnier", "epsilon": 0.01}},
    ):
        made = config(**changes)
        assert TrialConfig.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"stpes": 3},
        {"optimizer": {"kind": "adamw", "lrr": 1e-3}},
        {"steps": -1},
        {"steps": {"teramacs": 0.5}, "model": {"kind": "classical"}},
        {"steps": {"teramacs": 0}},
        {"optimizer": {"kind": "adamw", "lr": 0}},
        {"optimizer": {"lr": 1e-3}},
        {"optimizer": {"kind": "sgd", "momentum": 0.0}},
        {"crops": {"patch": 2}},
        {"precision": "fp8"},
        {"loss": {"kind": "l3"}},
        {"ema_decay": 1.0},
        {"evaluations": 0},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], config: Callable[..., TrialConfig]) -> None:
    with pytest.raises(ValidationError):
        config(**changes)


@pytest.mark.parametrize(("steps", "evaluations"), [(1, 8), (3, 8), (10, 5), (97, 8), (1000, 1)])
def test_rungs_are_evenly_spaced_and_end_with_the_last_step(
    steps: int, evaluations: int, config: Callable[..., TrialConfig]
) -> None:
    rungs = list(config(steps=steps, evaluations=evaluations).rungs())
    assert rungs[-1] == steps
    assert rungs[0] >= 1
    assert len(rungs) == min(steps, evaluations)
    gaps = [later - earlier for earlier, later in pairwise([0, *rungs])]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("width", "layers"), [(4, 3), (8, 4), (32, 8)])
def test_equal_compute_gives_steps_inverse_to_cost(
    width: int, layers: int, config: Callable[..., TrialConfig]
) -> None:
    macs_per_pixel = 9 * (2 * width + (layers - 2) * width**2)
    per_step = 3 * macs_per_pixel * 5 * 16**2 / 1e12  # forward and backward, 5 crops of 16 x 16
    trial = config(
        model={"kind": "dncnn", "channels": 1, "width": width, "layers": layers},
        crops={"batch": 5, "patch": 16},
        steps={"teramacs": 0.01},
    )
    assert trial.teramacs_per_step == pytest.approx(per_step)
    assert trial.total_steps == round(0.01 / per_step)
    assert list(trial.rungs())[-1] == trial.total_steps


def test_compute_below_one_step_is_one_step(config: Callable[..., TrialConfig]) -> None:
    assert config(steps={"teramacs": 1e-12}).total_steps == 1


def test_rungs_of_runs_of_any_length_have_the_same_shares(config: Callable[..., TrialConfig]) -> None:
    assert config(steps=9, evaluations=4).rungs() == {2: 25, 4: 50, 7: 75, 9: 100}
    assert config(steps=1000, evaluations=4).rungs() == {250: 25, 500: 50, 750: 75, 1000: 100}
    assert config(steps=1, evaluations=4).rungs() == {1: 100}
    assert config(steps=0, evaluations=4).rungs() == {}


def test_a_filter_is_told_to_have_no_steps(config: Callable[..., TrialConfig]) -> None:
    filters = {"kind": "classical", "channels": 1}
    assert config(model=filters, steps=0).total_steps == 0
    with pytest.raises(ValidationError, match="a classical filter has nothing to train; allowed: 0"):
        config(model=filters, steps=10)


COOLDOWN = {"kind": "constant_cooldown", "cooldown": 0.25, "warmup": 0.02}


def test_run_with_another_length_goes_through_what_was_planned(config: Callable[..., TrialConfig]) -> None:
    planned = config(steps=1900, schedule=COOLDOWN, pauses=(1 / 9, 1 / 3), evaluations=4)
    for steps in (700, 701, 1900, 1901, 9000):
        changed = planned.with_length(steps, since=633)
        assert changed.total_steps == steps
        assert changed.planned_steps == 1900
        assert [changed.planned_step(step) for step in (0, 1, 632, 633)] == [0, 1, 632, 633]
        assert changed.planned_step(steps) == pytest.approx(1900)
        rungs = changed.rungs()
        assert list(rungs.values()) == [11, 25, 33, 50, 75, 100]
        assert [step for step in rungs if step <= 633] == [211, 475, 633]
        assert list(rungs)[-1] == steps
        # After 38 steps of warm-up three quarters of the plan are held, however long that takes: to 1434.5.
        held, falling = (
            changed.planned_step(changed.step_at(1434)),
            changed.planned_step(changed.step_at(1436)),
        )
        assert changed.schedule.factor(min(held, 1434.5), 1900) == 1.0
        assert changed.schedule.factor(falling, 1900) < 1.0


def test_length_can_be_changed_again_and_again(config: Callable[..., TrialConfig]) -> None:
    first = config(steps=100).with_length(500, since=40)
    second = first.with_length(300, since=200)
    third = second.with_length(250, since=200)  # no step was made meanwhile
    assert first.past(200) == second.past(200) == third.past(200)
    assert first.past(201) != second.past(201)
    assert first.planned_step(200) == second.planned_step(200) == pytest.approx(40 + 160 * 60 / 460)
    assert third.tempo is not None
    assert [step for step, _ in third.tempo.marks] == [40, 200]
    assert third.as_planned() == config(steps=100)


def test_past_of_a_run_is_that_of_the_one_it_was_planned_as(config: Callable[..., TrialConfig]) -> None:
    planned = config(steps=100)
    changed = planned.with_length(160, since=30)
    assert changed.past(30) == planned.past(30)
    assert changed.past(31) != planned.past(31)
    assert config(steps=101).past(30) != planned.past(30)
    assert config(steps=100, seed=1).past(30) != planned.past(30)


@pytest.mark.parametrize("steps", range(31, 300, 7))
@pytest.mark.parametrize("since", [0, 1, 17, 30])
def test_planned_steps_and_steps_are_each_others_inverse(
    steps: int, since: int, config: Callable[..., TrialConfig]
) -> None:
    changed = config(steps=100).with_length(steps, since)
    positions = [changed.planned_step(step) for step in range(steps + 1)]
    assert all(one < other for one, other in pairwise(positions))
    for planned in range(101):
        first = changed.step_at(planned)
        assert positions[first] >= planned - 1e-6
        assert first == 0 or positions[first - 1] < planned


@pytest.mark.parametrize(
    ("tempo", "steps", "said"),
    [
        ({"planned": 100, "marks": [[10, 1.0]]}, 99, "leads to 100 steps, not 99"),
        ({"planned": 100, "marks": [[10, 1.0], [10, 2.0]]}, 99, "allowed are rising steps"),
        ({"planned": 100}, {"teramacs": 1.0}, "not with teramacs"),
    ],
)
def test_tempo_that_leads_elsewhere_is_refused(
    tempo: dict[str, Any], steps: Any, said: str, config: Callable[..., TrialConfig]
) -> None:
    with pytest.raises(ValidationError, match=said):
        config(steps=steps, tempo=tempo)
