"""Simulation of searches on recorded learning curves: the state of a search after each piece of work."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna

from search.scheduler import (
    TOP,
    LadderConfig,
    Promote,
    Prune,
    Rules,
    Snapshot,
    TrialView,
    WorkerView,
    next_action,
)
from search.scheduler import State as Progress
from search.scheduler.rungs import leader
from tests.benchmarks.proposals import Proposer
from tests.benchmarks.recording import FULL, SCORED_EVERY, Curve, Floats

KEEP = 10
"""Trials that may wait at a rung: `keep` of a study."""
FINALISTS = 8


@dataclass(frozen=True)
class Finalist:
    """A paused trial, the cost of its last stretch, and its score afterwards."""

    seconds: float
    psnr_db: float


@dataclass(frozen=True)
class State:
    """A search between two pieces of work: time spent, best score of whole trainings, and paused trials.

    `finalists` are in the order in which they would be trained to the end.
    """

    seconds: float
    psnr_db: float = -np.inf
    finalists: tuple[Finalist, ...] = ()


@dataclass(frozen=True)
class FinishPlan:
    """Reserve of a budget for last stretches of so many finalists; more of them follow while there is time."""

    needed: int = 1
    most: int = 1


def ended(states: Sequence[State], budgets: Sequence[float] | Floats, finish_plan: FinishPlan) -> Floats:
    """The best score of the search for each budget in seconds; -inf for none.

    The search goes on until the next state would use up the time reserved for last stretches.
    """
    states = [State(0.0), *states]
    kept = [sum(finalist.seconds for finalist in state.finalists[: finish_plan.needed]) for state in states]
    spent = np.array([state.seconds for state in states])
    last = np.searchsorted(np.maximum.accumulate(spent + kept), budgets, side="right") - 1
    return np.array(
        [_finished(states[n], budget, finish_plan) for n, budget in zip(last, budgets, strict=True)]
    )


def _finished(state: State, budget: float, finish_plan: FinishPlan) -> float:
    best, left = state.psnr_db, budget - state.seconds
    for finalist in state.finalists[: finish_plan.most]:
        left -= finalist.seconds
        if left < 0:
            break
        best = np.fmax(best, finalist.psnr_db)
    return float(best)


def whole(proposer: Proposer, pruner: optuna.pruners.BasePruner, until: float = np.inf) -> list[State]:
    """Every trial from its start to its end, unless the pruner ends it; scores at each eighth."""
    study = optuna.create_study(direction="maximize", study_name="replay", pruner=pruner)
    state, states = State(0.0), []
    while state.seconds < until and (curve := proposer.next()) is not None:
        trial, reached, pruned, settled = study.ask(), FULL, False, curve.settled
        for sixteenth in range(SCORED_EVERY, FULL + 1, SCORED_EVERY):
            score, counts = float(curve.scores[sixteenth - 1]), settled[sixteenth - 1]
            if counts and not np.isnan(score):
                trial.report(score, sixteenth // SCORED_EVERY)
                proposer.scored(trial.number, round(TOP * sixteenth / FULL), score)
            if np.isnan(score) or (counts and sixteenth < FULL and trial.should_prune()):
                reached, pruned = sixteenth, True
                break
        final = None if pruned or np.isnan(curve.final) else curve.final
        study.tell(trial, final, state=None if final is not None else optuna.trial.TrialState.PRUNED)
        proposer.ended(trial.number, final)
        best = max(state.psnr_db, -np.inf if final is None else final)
        state = State(state.seconds + curve.seconds(0, reached), best)
        states.append(state)
    return states


def with_rungs(
    proposer: Proposer, ladder: LadderConfig, until: float = np.inf, promote: bool = True
) -> list[State]:
    """Trials that pause at rungs, by the policy of the real search; without promotions, all end at the lowest.

    Rungs stand at the nearest sixteenth. Only the first phase of a search is simulated: `ended` adds the last
    stretches for many budgets at once, which `next_action` plans for one.
    """
    shares = zip(ladder.percents(), ladder.shares(), strict=True)
    sixteenths = {0: 0} | {percent: round(FULL * share) for percent, share in shares}
    rules = Rules(ladder, trials=sys.maxsize, timeout=np.inf, search_share=1.0, finish_share=0.5, keep=KEEP)
    curves: list[Curve] = []
    trials: list[TrialView] = []
    state, states = State(0.0), []
    while state.seconds < until:
        action = next_action(Snapshot(rules, WorkerView(), trials), state.seconds)
        if isinstance(action, Promote) and promote:
            number = action.trial
        elif (new := proposer.next()) is not None:
            number = len(trials)
            curves.append(new)
            trials.append(TrialView(number, Progress.QUEUED))
        else:
            break
        trial, curve = trials[number], curves[number]
        goal = ladder.above(trial.rung)
        spent = state.seconds + curve.seconds(sixteenths[trial.rung], sixteenths[goal])
        score = curve.at_rung(sixteenths[goal])
        final = curve.final if goal == TOP else np.nan
        if np.isnan(score) or goal == TOP:
            proposer.ended(number, None if np.isnan(final) else final)
        else:
            proposer.scored(number, goal, score)
        scores = trial.scores if np.isnan(score) else {**trial.scores, goal: score}
        pauses = goal < TOP and not np.isnan(score)
        trials[number] = TrialView(
            number, Progress.PAUSED if pauses else Progress.COMPLETE, scores, goal=goal
        )
        while isinstance(prune := next_action(Snapshot(rules, WorkerView(), trials), spent), Prune):
            trials[prune.trial] = replace(trials[prune.trial], state=Progress.PRUNED)
            proposer.ended(prune.trial, None)
        state = State(
            spent, float(np.fmax(state.psnr_db, final)), _finalists(trials, curves, ladder, sixteenths)
        )
        states.append(state)
    return states


def _finalists(
    trials: Sequence[TrialView], curves: Sequence[Curve], ladder: LadderConfig, sixteenths: Mapping[int, int]
) -> tuple[Finalist, ...]:
    paused = [trial for trial in trials if trial.is_paused]
    found: list[Finalist] = []
    while len(found) < FINALISTS and (first := leader(paused, ladder)) is not None:
        paused.remove(first)
        curve = curves[first.number]
        found.append(Finalist(curve.seconds(sixteenths[first.rung], FULL), curve.final))
    return tuple(found)
