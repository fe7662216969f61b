"""TrialConfig: JSON and back, rungs, and training lengths by compute."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from search.trial.config import TrialConfig


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


@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.1])
def test_stretched_run_cools_down_from_the_step_it_was_told(
    warmup: float, config: Callable[..., TrialConfig]
) -> None:
    schedule = {"kind": "constant_cooldown", "cooldown": 0.3, "warmup": warmup}
    planned = config(steps=1900, schedule=schedule)
    for constant in range(400, 1300, 7):
        for steps in (1330, 1857, 2214):
            stretched = planned.stretched(steps, constant)
            assert stretched.constant_steps == constant
            assert stretched.past == planned.past
            factors = [
                stretched.schedule.factor(step, steps) for step in (constant - 1, constant, constant + 1)
            ]
            assert factors[0] == 1.0
            assert factors[1] > 0.99
            assert factors[2] < 1.0


@pytest.mark.parametrize("steps", [50, 1000, 1234, 9000])
def test_run_is_not_made_shorter_than_its_warm_up_allows(
    steps: int, config: Callable[..., TrialConfig]
) -> None:
    planned = config(steps=steps, schedule={"kind": "constant_cooldown", "cooldown": 0.3, "warmup": 0.02})
    shortest = planned.stretched(planned.fewest_steps)
    assert shortest.past == planned.past
    assert shortest.constant_steps >= 0.02 * steps
    assert planned.fewest_steps == 1 + int(0.04 * steps)
    with pytest.raises(ValidationError):
        planned.stretched(planned.fewest_steps - 2)
