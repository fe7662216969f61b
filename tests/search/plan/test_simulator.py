"""The simulator of `plan` and the loop of a worker: one policy, and the same actions at the same moments."""

import heapq
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from search.database import (
    FrozenTrial,
    Heartbeat,
    default_storage_url,
    facts_of,
    load_study,
    open_study,
    record_facts,
    release_trial,
)
from search.database.trial_facts import LABEL, RungScore
from search.plan import simulator
from search.plan.cost_model import TrainingCost
from search.plan.score_model import ScoreModel
from search.plan.simulator import Simulation
from search.scheduler import TOP, Action, Snapshot, Wait, policy
from search.study import StudySpec, load_spec
from search.worker import Repeat, RunOptions, Worker, WorkerLoop, loop
from search.worker.trial_setup import draw_config

StudyFile = Callable[..., Path]
SETUP_SECONDS = 0.25
STEPS = 160
PER_STEP = (1 / 32, 1 / 16, 1 / 64, 3 / 64)  # seconds: of trials one after another, and so again
SCORES = (20.0, 23.0, 21.0, 26.0, 24.0, 22.0, 27.0, 25.0)
KNOWN = '[[first]]\nname = "by hand"\n"model.width" = 4'


class Turns:
    """A clock of several threads: only one of them runs, until it says how long its work takes."""

    def __init__(self, workers: int) -> None:
        self.now, self.running = SETUP_SECONDS, -1
        self.agenda = [(SETUP_SECONDS, index) for index in range(workers)]
        self.changed = threading.Condition()

    def spend(self, index: int, seconds: float) -> None:
        with self.changed:
            heapq.heappush(self.agenda, (self.now + seconds, index))
            self.running = -1
            self.changed.notify_all()
        self.begin(index)

    def begin(self, index: int) -> None:
        with self.changed:
            turn = self.changed.wait_for(lambda: self.running < 0 and self.agenda[0][1] == index, timeout=600)
            assert turn, "another worker hangs"
            self.now, self.running = heapq.heappop(self.agenda)

    def end(self) -> None:
        with self.changed:
            self.running = -1
            self.changed.notify_all()


class Scripted(ScoreModel):
    """Costs and scores by the number of a trial."""

    def __init__(self, costs: Callable[[int], TrainingCost]) -> None:
        self.costs, self.begun = costs, 0

    def draw_cost(self, number: int, best_first: Sequence[TrainingCost]) -> TrainingCost:
        self.begun = number
        return self.costs(number)

    def quality(self, cost: TrainingCost) -> float:
        return SCORES[self.begun % len(SCORES)]

    def score(self, quality: float) -> float:
        return quality


class FakeWorker(Worker):
    """Trains nothing: steps and scores take the time that they take in the simulation."""

    turns: Turns
    cost: TrainingCost

    def spend(self, seconds: float) -> None:
        self.turns.spend(self.options.index, seconds)

    def work_on(self, trial: optuna.Trial, pause_at: int | None = None) -> None:
        config, facts = draw_config(self.spec, trial, channels=1), facts_of(trial)
        per_step, before = PER_STEP[trial.number % len(PER_STEP)], facts.steps_done
        if facts.goal is not None and facts.goal < TOP:
            pause_at = config.steps_at(self.spec.ladder.share(facts.goal))
        until = config.total_steps if pause_at is None else pause_at
        scored = [step for step in config.rungs() if before < step <= until]
        took = self.cost.per_start + per_step * (until - before) + self.cost.per_score * len(scored)
        took += self.cost.first_start * (before == 0) + self.cost.at_end * (until == config.total_steps)
        self.spend(took)
        for step in scored:
            trial.report(SCORES[trial.number % len(SCORES)], config.rungs()[step])
        record_facts(
            trial,
            config=config,
            steps=config.total_steps,
            steps_done=until,
            seconds=facts.seconds + took,
            seconds_per_step=per_step,
            rungs=[RungScore(step, 0.0) for step in config.rungs() if step <= until],
        )
        if until == config.total_steps:
            self.study.tell(trial, SCORES[trial.number % len(SCORES)], state=TrialState.COMPLETE)
        else:
            release_trial(self.study, trial)
        self.seconds_per_training.append(took * config.total_steps / (until - before))


def cost(number: int) -> TrainingCost:
    """Cost of training a trial of this study: powers of two, so that sums are exact."""
    return TrainingCost(
        steps=STEPS,
        per_step=PER_STEP[number % len(PER_STEP)],
        per_score=1 / 64,
        at_end=1 / 64,
        per_start=1 / 32,
        first_start=1 / 8,
        per_repeat=0.5,
        shares=tuple(n / 8 for n in range(1, 9)),
    )


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int, Action]]:
    """When which worker does what, from here on; waiting is left out."""
    found: list[tuple[float, int, Action]] = []

    def next_action(snapshot: Snapshot, elapsed: float) -> Action:
        action = decide(snapshot, elapsed)
        if not isinstance(action, Wait):
            found.append((elapsed, snapshot.worker.index, action))
        return action

    decide = policy.next_action
    monkeypatch.setattr(loop, "next_action", next_action)
    monkeypatch.setattr(simulator, "next_action", next_action)
    return found


def search(spec: StudySpec, out: Path, workers: int) -> None:
    """The real loops on a real database, with trainings that take no time."""
    url, turns, failed = default_storage_url(out), Turns(workers), list[BaseException]()
    opened = open_study(spec, url, continue_with_changes=False, out=out)
    for known in spec.first:
        opened.enqueue_trial(dict(known.values), user_attrs={LABEL: known.name})

    def work(index: int) -> None:
        options = RunOptions(url, out, torch.device("cpu"), quiet=True, index=index, workers=workers)
        its = load_study(spec.name, url)
        split, stop = SimpleNamespace(fingerprint="0", channels=1), SimpleNamespace(requested=False)
        shows = SimpleNamespace(say=lambda text: None, ended=lambda *_: None)
        shows.spend = lambda seconds: turns.spend(index, seconds)
        worker = FakeWorker(spec, options, its, split, stop, shows, Heartbeat(its))  # type: ignore[arg-type]
        worker.turns, worker.cost = turns, cost(0)
        turns.begin(index)
        try:
            WorkerLoop(worker, 0.0, lambda: turns.now, worker.spend).run()
        except BaseException as error:
            failed.append(error)
        finally:
            turns.end()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 8, "timeout": 1e6},
        {"trials": 1000, "timeout": 20.0},
        {"trials": 1000, "timeout": 20.0, "confirm_seeds": 2, "finalists": 2},
        {"trials": 6, "timeout": 1e6, "confirm_seeds": 2, "finalists": 2, "keep": 1},
        {"trials": 1000, "timeout": 24.0, "ladder": {"rungs": 0}},
    ],
    ids=["few trials", "little time", "repeats in little time", "repeats of few trials", "no rungs"],
)
def test_simulated_search_takes_the_same_actions_at_the_same_moments_as_the_real_one(
    changes: dict[str, Any], workers: int, study_file: StudyFile, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = "steps = 160\nrung_megapixels = 0.5\nval_megapixels = 0.5"
    path = study_file(("steps = 8", longer), ("evaluations = 4", "evaluations = 8"), more=KNOWN)
    spec = load_spec(str(path)).with_changes(**{"ladder": {"rungs": 2, "factor": 2}, **changes})

    def repeat(trial: FrozenTrial, seed: int, steps: int, *rest: Any) -> Repeat:
        took = steps * PER_STEP[trial.number % len(PER_STEP)] + cost(0).per_repeat
        rest[-1].progress.spend(took)
        return Repeat(trial.number, seed, steps, took, (SCORES[trial.number % len(SCORES)],))

    monkeypatch.setattr(loop, "retrain_finalist", repeat)
    real = recorded(monkeypatch)
    search(spec, out, workers)
    taken = list(real)
    real.clear()
    simulation = Simulation(spec, Scripted(cost), len(spec.first), workers)
    simulation.run(SETUP_SECONDS)
    assert real == taken
    assert len(taken) > 5
