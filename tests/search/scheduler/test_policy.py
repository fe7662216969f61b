"""The policy of a search: a snapshot in, an action out. Nothing runs here; times and scores are written down."""

import math
from dataclasses import replace
from typing import Any

import pytest

from search.scheduler import (
    Begin,
    Confirm,
    Done,
    Enter,
    Finish,
    Finishing,
    LadderConfig,
    Promote,
    Prune,
    RepeatView,
    Resume,
    Rules,
    Snapshot,
    State,
    TrialView,
    Wait,
    WorkerView,
    next_action,
)
from search.scheduler.policy import POLL_INTERVAL_S, REPLAN_SHARES, AwaitingRepeats, Ending, Repeating

LADDER = LadderConfig(rungs=2, factor=2)  # 25 %, 50 %, the end
# 50 seconds for trials and promotions, 10 for repeats, 40 for the last stretch.
RULES = Rules(LADDER, trials=9, timeout=100.0, search_share=0.5, finish_share=0.4, keep=10, finalists=2)
STEPS = 100


def trial(number: int, state: State, *scores: float, **changes: Any) -> TrialView:
    """A trial with these scores at its rungs, a second for each of the steps that it has made up to there."""
    reached = dict(zip(LADDER.percents(), scores, strict=False))
    done = max(reached, default=0)
    known = {"steps": STEPS, "steps_done": done, "seconds": float(done), "seconds_per_step": 1.0}
    goal = None if state is State.QUEUED else done
    return TrialView(number, state, reached, **{"goal": goal, **known, **changes})


def paused(number: int, *scores: float, **changes: Any) -> TrialView:
    return trial(number, State.PAUSED, *scores, **changes)


def after(elapsed: float, *trials: TrialView, rules: Rules = RULES, **worker: Any) -> Any:
    """The next action of a worker."""
    repeats = worker.pop("repeats", ())
    return next_action(Snapshot(rules, WorkerView(**worker), trials, repeats), elapsed)


def test_search_without_trials_begins_one_however_late_it_is() -> None:
    assert after(0.0) == Begin(25)
    assert after(99.0, seconds_per_training=1e6) == Begin(25)


def test_queued_trials_begin_before_new_ones() -> None:
    assert after(1.0, paused(0, 20.0), trial(1, State.QUEUED), trial(2, State.QUEUED)) == Begin(25, queued=1)


def test_as_many_trials_begin_as_asked_for_and_those_tried_again_are_not_counted() -> None:
    two = replace(RULES, trials=2)
    one, again = paused(0, 20.0), trial(1, State.QUEUED, is_retry=True)
    assert after(1.0, one, trial(1, State.RUNNING), rules=two) != Begin(25)
    assert after(1.0, one, again, trial(2, State.QUEUED), rules=two) == Begin(25, queued=1)
    assert after(1.0, one, replace(again, state=State.FAILED), rules=two) == Begin(25)
    third = trial(2, State.QUEUED)  # was queued for a larger number of trials
    assert after(1.0, one, paused(1, 19.0, 18.0), third, rules=two) == Promote(0, 50)
    assert not isinstance(after(1.0, one, trial(1, State.RUNNING), third, rules=two), Begin)


@pytest.mark.parametrize(("elapsed", "fits"), [(30.0, True), (30.1, False)])
def test_trial_begins_only_if_its_first_rung_is_expected_in_time(elapsed: float, fits: bool) -> None:
    action = after(elapsed, paused(0, 20.0), seconds_per_training=80.0)  # a quarter of it: 20 seconds
    assert isinstance(action, Begin) == fits


def test_interrupted_trial_goes_on_first_and_to_the_rung_that_it_was_sent_to() -> None:
    promotable = [paused(0, 20.0), paused(1, 21.0)]
    interrupted = trial(2, State.INTERRUPTED, 19.0, goal=50)
    assert after(1.0, *promotable, interrupted) == Resume(2, 50)
    assert after(99.0, *promotable, replace(interrupted, goal=100)) == Resume(2, 100)


@pytest.mark.parametrize(("elapsed", "fits"), [(25.0, True), (25.1, False)])
def test_promotion_is_made_only_if_it_is_expected_in_time(elapsed: float, fits: bool) -> None:
    # The way to the next rung is as long as that to the first, which took 25 seconds.
    action = after(elapsed, paused(0, 20.0), paused(1, 21.0), seconds_per_training=1e6)
    assert (action == Promote(1, 50)) == fits


def test_slow_trial_leaves_the_promotion_to_the_next_that_is_in_time() -> None:
    four = [paused(0, 20.0), paused(1, 21.0), paused(2, 23.0, seconds=40.0), paused(3, 22.0)]
    assert after(20.0, *four) == Promote(3, 50)


def test_promotion_comes_before_a_new_trial() -> None:
    assert after(0.0, paused(0, 20.0), paused(1, 21.0)) == Promote(1, 50)
    assert after(0.0, paused(0, 20.0)) == Begin(25)


def test_trial_behind_too_many_others_is_pruned_before_anything_else_is_done() -> None:
    few = replace(RULES, keep=1)
    assert after(0.0, paused(0, 20.0), paused(1, 21.0), rules=few) == Prune(0)
    assert after(0.0, paused(0, 20.0), paused(1, 21.0, 22.0), rules=few) == Begin(25)  # one at each rung


def test_worker_without_work_waits_for_scores_of_others_while_there_is_time() -> None:
    full = replace(RULES, trials=2)
    others = [paused(0, 20.0), trial(1, State.RUNNING, goal=25)]
    assert after(1.0, *others, rules=full) == Wait(POLL_INTERVAL_S, until=50.0)
    assert after(50.1, *others, rules=full) == Enter(Finishing())
    finishing = [paused(0, 20.0), trial(1, State.RUNNING, 21.0, goal=100)]
    assert after(1.0, *finishing, rules=full) == Enter(Finishing())  # its scores promote nobody


CONFIRMED = replace(RULES, confirm_seeds=2)


def test_finalists_are_the_best_at_the_highest_rung_and_the_best_known_recipe() -> None:
    trials = [
        trial(0, State.PRUNED, 18.0, is_known=True),
        trial(1, State.PRUNED, 19.0, is_known=True),
        paused(2, 30.0),
        paused(3, 20.0, 21.0),
        paused(4, 20.0, 23.0),
        paused(5, 20.0, 22.0),
    ]
    enter = after(60.0, *trials, rules=CONFIRMED)
    assert isinstance(enter.phase, Repeating)
    assert enter.phase.runs == ((4, 1), (5, 1), (1, 1), (4, 2), (5, 2), (1, 2))
    known_too = replace(trials[4], is_known=True)
    enter = after(60.0, *trials[:4], known_too, trials[5], rules=CONFIRMED)
    assert [number for number, seed in enter.phase.runs if seed == 1] == [4, 5]
    done = trial(1, State.COMPLETE, 19.0, 25.0, 26.0, is_known=True)
    enter = after(60.0, trials[0], done, *trials[2:], rules=CONFIRMED)
    assert [number for number, seed in enter.phase.runs if seed == 1] == [4, 5]


def test_time_of_repeats_is_divided_by_those_that_a_worker_makes_one_after_another() -> None:
    trials = [paused(0, 20.0, 21.0), paused(1, 20.0, 22.0)]  # two finalists from two seeds
    for workers, seconds in ((1, 10.0 / 4), (2, 10.0 / 2), (3, 10.0 / 2), (4, 10.0)):
        enter = after(60.0, *trials, rules=CONFIRMED, workers=workers)
        assert enter.phase.seconds == pytest.approx(seconds)
    enter = after(60.0, trials[0], rules=replace(CONFIRMED, trials=1))
    assert enter.phase.seconds is None  # the search is over for its number of trials


RUNS = ((0, 1), (1, 1), (0, 2), (1, 2))
TWO = (paused(0, 20.0), paused(1, 21.0, seconds_per_step=0.5))


def test_workers_divide_the_repeats_and_skip_those_that_are_done() -> None:
    phase = Repeating(RUNS, seconds=10.0)
    firsts = [after(60.0, *TWO, phase=phase, index=index, workers=2) for index in (0, 1)]
    assert firsts == [Confirm(0, 1, steps=10), Confirm(1, 1, steps=20)]
    done = [RepeatView(0, 1, 7, 30.0)]
    assert after(60.0, *TWO, phase=phase, workers=2, repeats=done) == Confirm(
        0, 2, steps=7
    )  # as the first one


def test_repeat_that_no_clock_decides_about_goes_up_to_the_last_rung_below_the_end() -> None:
    assert after(60.0, *TWO, phase=Repeating(RUNS, None)) == Confirm(0, 1, steps=STEPS // 2)


def test_repeats_of_others_are_waited_for_but_not_forever_and_not_those_of_other_finalists() -> None:
    ours = [RepeatView(trial, seed, 7, 30.0) for trial, seed in RUNS[::2]]
    others = [RepeatView(trial, seed, 7, 30.0) for trial, seed in RUNS[1::2]]
    earlier = [RepeatView(7, 1, 7, 30.0)]
    entered = after(55.0, *TWO, phase=Repeating(RUNS, 10.0), workers=2, repeats=[*ours, *earlier])
    assert entered == Enter(AwaitingRepeats(RUNS, until=60.0))
    entered = after(55.0, *TWO, phase=Repeating(RUNS, None), workers=2, repeats=ours)
    assert entered == Enter(AwaitingRepeats(RUNS, until=55.0 + 3 * 2 * 25.0))  # thrice what its trials took
    waiting = AwaitingRepeats(RUNS, until=60.0)
    assert after(59.9, *TWO, phase=waiting, repeats=[*ours, *earlier]) == Wait(POLL_INTERVAL_S, until=60.0)
    assert after(60.0, *TWO, phase=waiting, repeats=ours) == Enter(Finishing())
    assert after(55.0, *TWO, phase=waiting, repeats=[*ours, *others]) == Enter(Finishing())


def finish(elapsed: float, *trials: TrialView, **worker: Any) -> Any:
    return after(elapsed, *trials, **{"phase": Finishing(), **worker})


def test_last_stretch_of_the_best_is_made_to_fit_the_time_and_planned_anew_on_the_way() -> None:
    trials = [paused(0, 20.0, 21.0), paused(1, 20.0, 22.0)]
    first = finish(60.0, *trials)
    steps = 50 + int(0.97 * 40)
    assert first == Finish(
        1, steps, pause_at=50 + math.ceil(0.3 * 38), next_phase=Finishing(1, 1, math.ceil(50 / 0.85))
    )
    on_its_way = replace(trials[1], state=State.INTERRUPTED, goal=100, steps_done=62, seconds=62.0)
    second = after(71.0, trials[0], on_its_way, phase=first.next_phase)
    steps = 62 + int(0.97 * 29)
    assert second == Finish(
        1,
        steps,
        pause_at=62 + math.ceil(0.75 * 28),
        next_phase=Finishing(1, 2, first.next_phase.fewest_steps),
    )
    third = after(99.9, trials[0], replace(on_its_way, steps_done=83), phase=second.next_phase)
    assert third == Finish(
        1, 84, pause_at=84, next_phase=Finishing(1, len(REPLAN_SHARES), first.next_phase.fewest_steps)
    )


def test_last_stretch_leaves_time_for_the_scores_that_are_still_to_come() -> None:
    scored = paused(0, 20.0, 21.0, seconds=50.0 + 2 * 3.0, scored=2, scores_to_come=5.0)
    assert finish(60.0, scored).steps == 50 + int(0.97 * 40 - 5 * 3.0)


def test_last_stretch_takes_a_share_of_the_training_however_late_it_is() -> None:
    assert finish(150.0, paused(0, 20.0, 21.0)).steps == math.ceil(50 / 0.85)
    few = paused(0, 20.0, steps_done=2, seconds=2.0)
    assert finish(150.0, few).steps == 3


def test_trial_that_would_end_far_too_late_leaves_the_last_stretch_to_another() -> None:
    # The shortest stretch is 9 steps; a quarter more than the 40 seconds that are left is allowed.
    best = paused(0, 20.0, 22.0, seconds_per_step=50.0 / 9)
    assert finish(60.0, best, paused(1, 20.0, 21.0)).trial == 0
    slower = replace(best, seconds_per_step=50.1 / 9)
    assert finish(60.0, slower, paused(1, 20.0, 21.0)).trial == 1


def test_there_is_a_winner_even_if_it_comes_late_but_only_one() -> None:
    late = [paused(0, 20.0, 22.0, seconds_per_step=50.0), paused(1, 20.0, 21.0, seconds_per_step=20.0)]
    assert finish(60.0, *late).trial == 1  # the least late
    for other in (trial(2, State.COMPLETE, 1.0, 2.0, 3.0), trial(2, State.RUNNING, 1.0, 2.0, goal=100)):
        assert finish(60.0, *late, other) == Enter(Ending())


def test_where_no_clock_decides_the_leader_alone_is_trained_to_its_planned_end() -> None:
    ended = replace(RULES, trials=2)
    two = [paused(0, 20.0, 22.0), trial(1, State.PRUNED, 19.0)]
    assert finish(1e6, *two, rules=ended) == Finish(0, None, None, next_phase=Ending())
    better = [paused(0, 20.0, 22.0), trial(1, State.COMPLETE, 20.0, 23.0, 24.0)]
    assert finish(60.0, *better, rules=ended) == Enter(Ending())


def test_another_trial_is_finished_only_if_half_of_the_time_for_it_is_left() -> None:
    trials = [paused(0, 20.0, 22.0), trial(1, State.RUNNING, 20.0, 23.0, goal=100)]
    assert finish(79.9, *trials).trial == 0
    assert finish(80.0, *trials) == Enter(Ending())


def test_repeats_decide_who_is_finished_and_one_that_diverged_comes_last() -> None:
    trials = [paused(0, 20.0, 21.0), paused(1, 20.0, 22.0), paused(2, 20.0, 23.0)]
    repeats = [
        RepeatView(0, 1, 9, 30.0),
        RepeatView(1, 1, 9, 32.0),
        RepeatView(0, 2, 9, 30.0),
        RepeatView(1, 2, 9, 29.0),
    ]
    assert finish(60.0, *trials, repeats=repeats).trial == 1
    diverged = [*repeats[:3], RepeatView(1, 2, 9, -math.inf)]
    assert finish(60.0, *trials, repeats=diverged).trial == 0
    assert finish(60.0, *trials).trial == 2


@pytest.mark.parametrize("state", [State.COMPLETE, State.PRUNED, State.FAILED, State.RUNNING])
def test_worker_whose_last_stretch_is_over_takes_no_other_trial(state: State) -> None:
    trials = [paused(0, 20.0, 22.0), trial(1, state, 20.0, 21.0, goal=100)]
    assert after(70.0, *trials, phase=Finishing(1, 1, 59)) == Enter(Ending())


def test_whoever_is_still_paused_at_the_end_is_pruned() -> None:
    trials = [
        trial(0, State.COMPLETE, 20.0, 21.0, 22.0),
        paused(1, 20.0),
        trial(2, State.RUNNING, 20.0, goal=50),
    ]
    assert after(99.0, *trials, phase=Ending()) == Prune(1)
    assert after(99.0, trials[0], trial(1, State.PRUNED, 20.0), trials[2], phase=Ending()) == Done()


def test_without_rungs_trials_begin_until_the_time_is_over_and_none_is_finished() -> None:
    whole = replace(RULES, ladder=LadderConfig(rungs=0), search_share=1.0)
    done = TrialView(0, State.COMPLETE, {100: 20.0}, goal=100)
    assert after(70.0, done, rules=whole, seconds_per_training=30.0) == Begin(100)
    assert after(70.1, done, rules=whole, seconds_per_training=30.0) == Enter(Finishing())
    assert finish(70.1, done, rules=whole) == Enter(Ending())
