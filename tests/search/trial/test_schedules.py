"""Learning-rate curves against their formulas."""

import math
from itertools import pairwise

import pytest

from search.trial.schedules import (
    ConstantCooldownConfig,
    CosineConfig,
    CosineHoldConfig,
    ExponentialConfig,
    ScheduleConfig,
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
]
LENGTHS = [1, 2, 3, 7, 17, 100, 997]


def curve_id(curve: ScheduleConfig) -> str:
    return str(curve)


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
@pytest.mark.parametrize("curve", CURVES, ids=curve_id)
def test_every_factor_is_a_share_and_training_steps_never_stand_still(
    curve: ScheduleConfig, steps: int
) -> None:
    values = [curve.factor(step, steps) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("curve", CURVES, ids=curve_id)
def test_past_the_end_the_last_value_stays(curve: ScheduleConfig, steps: int) -> None:
    assert curve.factor(steps + 1, steps) == curve.factor(10 * steps + 3, steps) == curve.factor(steps, steps)
