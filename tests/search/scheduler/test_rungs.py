"""Promotion and pruning of a few trials, compared with results worked out by hand."""

import pytest
from pydantic import ValidationError

from search.scheduler import LadderConfig, State, TrialView, ranked
from search.scheduler.rungs import leader, promotable, surplus_paused

LADDER = LadderConfig(rungs=2, factor=4)  # 6 %, 25 %, the end


def at_first(*scores: float, first: int = 0) -> list[TrialView]:
    return [TrialView(number, State.PAUSED, {6: score}) for number, score in enumerate(scores, first)]


def numbers(trials: list[TrialView]) -> list[int]:
    return [trial.number for trial in trials]


def test_rungs_are_powers_of_the_factor_and_are_named_in_percent() -> None:
    ladder = LadderConfig(rungs=3, factor=4)
    assert ladder.shares() == (1 / 64, 1 / 16, 1 / 4, 1.0)
    assert ladder.percents() == (2, 6, 25, 100)
    assert [ladder.above(percent) for percent in (0, 2, 6, 25)] == [2, 6, 25, 100]
    assert [ladder.share(percent) for percent in (0, 6, 100)] == [0.0, 1 / 16, 1.0]


def test_without_rungs_every_trial_goes_to_its_end() -> None:
    ladder = LadderConfig(rungs=0)
    assert ladder.percents() == (100,)
    assert ladder.above(0) == 100
    assert promotable([TrialView(0, State.RUNNING, {})], ladder) == []
    assert leader([TrialView(0, State.RUNNING, {100: 30.0})], ladder) is None


def test_rung_below_a_percent_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(
        ValidationError, match=r"the lowest would be at 1/256 of a training; allowed is 1/100"
    ):
        LadderConfig(rungs=4, factor=4)


def test_one_in_four_goes_on_once_there_are_four() -> None:
    assert promotable(at_first(20.0, 23.0, 21.0), LADDER) == []
    assert numbers(promotable(at_first(20.0, 23.0, 21.0, 22.0), LADDER)) == [1]
    assert numbers(promotable(at_first(20.0, 23.0, 21.0, 22.0, 24.0, 19.0, 18.0, 17.0), LADDER)) == [4, 1]


def test_beaten_trial_goes_on_when_worse_ones_have_come_in_below_it() -> None:
    gone_on = TrialView(0, State.PAUSED, {6: 25.0, 25: 27.0})
    assert promotable([gone_on, *at_first(24.0, 20.0, 20.0, first=1)], LADDER) == []
    assert numbers(promotable([gone_on, *at_first(24.0, *[20.0] * 6, first=1)], LADDER)) == [1]


def test_highest_rung_comes_first() -> None:
    higher = [TrialView(number, State.PAUSED, {6: 20.0 - number, 25: 20.0 + number}) for number in range(4)]
    found = promotable([*higher, *at_first(30.0, *[1.0] * 30, first=4)], LADDER)
    assert numbers(found)[:2] == [3, 4]


def test_running_and_finished_trials_are_counted_but_not_sent() -> None:
    busy = TrialView(9, State.RUNNING, {6: 30.0})
    assert promotable([busy, *at_first(20.0, 21.0, 22.0)], LADDER) == []


def test_equal_scores_go_to_the_earlier() -> None:
    assert numbers(promotable(at_first(20.0, 20.0, 20.0, 20.0), LADDER)) == [0]


def test_leader_is_the_best_at_the_highest_rung_anyone_has_reached() -> None:
    low = at_first(30.0, first=5)
    assert leader([], LADDER) is None
    assert leader(low, LADDER) == low[0]
    higher = [
        TrialView(0, State.PAUSED, {6: 21.0, 25: 24.0}),
        TrialView(1, State.PAUSED, {6: 22.0, 25: 23.0}),
    ]
    assert leader([*low, *higher], LADDER) == higher[0]


def test_at_each_rung_so_many_stay_paused() -> None:
    trials = [
        *at_first(20.0, 23.0, 21.0, 22.0),
        TrialView(4, State.PAUSED, {6: 30.0, 25: 31.0}),
        TrialView(5, State.RUNNING, {6: 10.0}),
    ]
    assert numbers(surplus_paused(trials, LADDER, keep=2)) == [2, 0]
    assert surplus_paused(trials, LADDER, keep=4) == []


def test_trials_that_have_made_too_few_steps_come_last() -> None:
    ladder = LadderConfig(rungs=2, factor=4)
    assert ladder.unreliable_rungs(100) == frozenset()
    assert ladder.unreliable_rungs(60) == {6}  # 4 steps
    assert ladder.unreliable_rungs(20) == {6}  # 5 steps at 25 %
    assert ladder.unreliable_rungs(4) == {6, 25, 100}
    assert ladder.unreliable_rungs(0) == frozenset()  # nothing is trained
    large = [
        TrialView(number, State.PAUSED, {6: 20.0 + number}, unreliable_rungs=frozenset({6}))
        for number in range(4)
    ]
    small = [TrialView(number, State.PAUSED, {6: 10.0 + number}) for number in range(4, 8)]
    assert [trial.number for trial in ranked([*large, *small], 6)] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert [trial.number for trial in promotable([*large, *small], ladder)] == [7, 6]
    assert [trial.number for trial in promotable(large, ladder)] == [3]  # there is no other
