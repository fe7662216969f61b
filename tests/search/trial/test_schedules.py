"""Learning-rate curves against their formulas."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from search.trial.schedules import (
    ConstantCooldownConfig,
    CosineConfig,
    CosineHoldConfig,
    ExponentialConfig,
    OneCycleConfig,
    ScheduleConfig,
    StepConfig,
    WarmRestartsConfig,
)

CURVES: list[ScheduleConfig] = [
    CosineConfig(),
    CosineConfig(final=0.1, warmup=0.1),
    CosineConfig(final=1.0),
    CosineHoldConfig(),
    CosineHoldConfig(descent=0.3, hold=0.5, warmup=0.25),
    CosineHoldConfig(descent=1.0, hold=0.0),
    ExponentialConfig(),
    ExponentialConfig(final=0.5, warmup=0.5),
    ConstantCooldownConfig(),
    ConstantCooldownConfig(cooldown=0.0),
    ConstantCooldownConfig(cooldown=1.0, warmup=0.05),
    StepConfig(),
    StepConfig(milestones=(1 / 6, 1 / 3, 0.9), drop=0.2, warmup=0.1),
    OneCycleConfig(),
    OneCycleConfig(warmup=0.0),
    OneCycleConfig(warmup=0.9, initial=0.0, final=1.0),
]
RESTARTS = [
    WarmRestartsConfig(),
    WarmRestartsConfig(cycles=1),
    WarmRestartsConfig(cycles=20, growth=1.0, decay=1.0, warmup=0.1),
    WarmRestartsConfig(cycles=20, growth=10.0, decay=0.01),
    WarmRestartsConfig(cycles=7, growth=1.3, final=1.0),
]
LENGTHS = [1, 2, 3, 7, 17, 100, 997]


def curve_id(curve: ScheduleConfig) -> str:
    return str(curve)


def torch_rates(steps: int, make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]) -> list[float]:
    """What a scheduler of torch makes of a peak rate of 1, from step 0 to `steps`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return [float(rate) for rate in rates]


def test_cosine_follows_its_formula() -> None:
    curve = CosineConfig(final=0.2)
    for step in (0, 25, 60):
        assert curve.factor(step, 100) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * step / 100)) / 2)


def test_cosine_hold_follows_a_cosine_to_descent_and_then_holds() -> None:
    curve = CosineHoldConfig(descent=0.5, hold=0.25)
    assert curve.factor(0, 100) == 1.0
    assert curve.factor(20, 100) == pytest.approx((1 + math.cos(math.pi * 20 / 50)) / 2)
    # The cosine is at a quarter after two thirds of its way (cos 120 degrees = -1/2).
    assert curve.factor(34, 100) == curve.factor(70, 100) == curve.factor(100, 100) == 0.25


def test_exponential_has_equal_ratios() -> None:
    curve = ExponentialConfig(final=0.01)
    assert curve.factor(50, 100) == pytest.approx(0.1)
    assert curve.factor(100, 100) == pytest.approx(0.01)
    ratios = {round(curve.factor(s + 1, 100) / curve.factor(s, 100), 12) for s in range(99)}
    assert len(ratios) == 1


def test_constant_cooldown_is_constant_and_then_one_minus_the_root() -> None:
    curve = ConstantCooldownConfig(cooldown=0.25)
    assert {curve.factor(step, 100) for step in range(75)} == {1.0}
    assert curve.factor(84, 100) == pytest.approx(1 - math.sqrt(9 / 25))
    assert curve.factor(100, 100) == 0.0


@pytest.mark.parametrize("steps", [1, 7, 100, 997])
def test_cosine_equals_that_of_torch(steps: int) -> None:
    expected = torch_rates(steps, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=steps, eta_min=0.1))
    assert [CosineConfig(final=0.1).factor(step, steps) for step in range(steps + 1)] == pytest.approx(
        expected
    )


def test_step_drops_at_its_milestones_and_equals_multi_step_of_torch() -> None:
    curve = StepConfig(milestones=(1 / 6, 1 / 3, 1 / 2), drop=0.2)
    assert [curve.factor(step, 180) for step in (0, 29, 30, 59, 60, 89, 90, 180)] == pytest.approx(
        [1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008]
    )
    expected = torch_rates(180, lambda o: lr_scheduler.MultiStepLR(o, milestones=[30, 60, 90], gamma=0.2))
    assert [curve.factor(step, 180) for step in range(181)] == pytest.approx(expected)


@pytest.mark.parametrize("share", [n / 20 for n in range(1, 20)])
@pytest.mark.parametrize("steps", [20, 60, 1000])
def test_a_milestone_on_a_step_takes_effect_with_that_step(share: float, steps: int) -> None:
    curve = StepConfig(milestones=(share,), drop=0.5)
    at = round(share * steps)
    assert (curve.factor(at - 1, steps), curve.factor(at, steps)) == (1.0, 0.5)


@pytest.mark.parametrize("milestones", [(0.0, 0.5), (0.5, 1.0), (0.75, 0.5), (0.5, 0.5)])
def test_milestones_that_do_not_rise_within_the_run_are_refused(milestones: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="allowed are rising shares, each above 0 and below 1"):
        StepConfig(milestones=milestones)


def test_one_cycle_equals_that_of_torch() -> None:
    # Torch counts to the last step, ours past it; torch starts at the initial rate, ours one step later.
    expected = torch_rates(
        101,
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=102,
            pct_start=32 / 102,
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        ),
    )
    curve = OneCycleConfig(warmup=0.3, initial=0.1, final=0.001)
    assert [curve.factor(step, 100) for step in range(101)] == pytest.approx(expected[1:])


def test_one_cycle_rises_and_falls_by_half_cosines() -> None:
    curve = OneCycleConfig(warmup=0.5, initial=0.2, final=0.1)
    for step in (0, 20, 49):
        up = (1 - math.cos(math.pi * (step + 1) / 51)) / 2
        assert curve.factor(step, 100) == pytest.approx(0.2 + 0.8 * up)
    for step in (50, 75, 100):
        down = (1 + math.cos(math.pi * (step - 50) / 50)) / 2
        assert curve.factor(step, 100) == pytest.approx(0.1 + 0.9 * down)


@pytest.mark.parametrize(("growth", "cycles", "steps"), [(1, 7, 70), (2, 3, 70), (3, 4, 400), (2, 5, 310)])
def test_warm_restarts_without_decay_equal_those_of_torch(growth: int, cycles: int, steps: int) -> None:
    curve = WarmRestartsConfig(cycles=cycles, growth=growth, decay=1.0, final=0.05)
    expected = torch_rates(
        steps - 1,
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=growth, eta_min=0.05),
    )
    assert [curve.factor(step, steps) for step in range(steps)] == pytest.approx(expected)
    assert curve.factor(steps, steps) == pytest.approx(0.05)  # the foot: torch would begin anew


def test_peaks_of_warm_restarts_decay() -> None:
    curve = WarmRestartsConfig(cycles=3, growth=2.0, decay=0.5)
    assert [curve.factor(step, 70) for step in (0, 10, 30)] == pytest.approx([1.0, 0.5, 0.25])
    assert [curve.factor(step, 70) for step in (5, 20, 50)] == pytest.approx([0.5, 0.25, 0.125])


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("curve", RESTARTS, ids=curve_id)
def test_warm_restarts_climb_at_most_once_per_cycle(curve: WarmRestartsConfig, steps: int) -> None:
    first = math.ceil(curve.warmup * steps)
    values = [curve.factor(step, steps) for step in range(first, steps + 1)]
    assert sum(later > earlier for earlier, later in pairwise(values)) < curve.cycles
    assert max(values) <= 1


def test_warm_up_rises_in_equal_parts_from_above_zero_to_the_peak() -> None:
    values = [CosineConfig(warmup=0.1).factor(step, 100) for step in range(11)]
    assert values == pytest.approx([n / 11 for n in range(1, 12)])


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("curve", CURVES, ids=curve_id)
def test_no_curve_climbs_after_its_warm_up(curve: ScheduleConfig, steps: int) -> None:
    first = math.ceil(curve.warmup * steps)
    values = [curve.factor(step, steps) for step in range(first, 2 * steps + 2)]
    assert all(later <= earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("curve", [*CURVES, *RESTARTS], ids=curve_id)
def test_every_factor_is_a_share_and_training_steps_never_stand_still(
    curve: ScheduleConfig, steps: int
) -> None:
    values = [curve.factor(step, steps) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("curve", [*CURVES, *RESTARTS], ids=curve_id)
def test_past_the_end_the_last_value_stays(curve: ScheduleConfig, steps: int) -> None:
    assert curve.factor(steps + 1, steps) == curve.factor(10 * steps + 3, steps) == curve.factor(steps, steps)
