"""Many workers on one SQLite file: trials per second beside plain Optuna, and what a trial costs among thousands.

python -m tests.benchmarks.storage --trials 2000 --workers 16
python -m tests.benchmarks.storage --growth 100,5000
"""

import argparse
import contextlib
import multiprocessing
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from search.database import (
    Heartbeat,
    Queue,
    Study,
    TrialState,
    begin_trial,
    open_database,
    record_facts,
    this_process,
)
from search.database.studies import change_trial
from search.database.trial_facts import GOAL, OWNER
from search.scheduler import Begin, LadderConfig, Rules, WorkerView, next_action

LADDER = LadderConfig(rungs=2, factor=2)
SECONDS = 0.05
"""Seconds that a trial sleeps in place of training."""
# What a trial writes about itself: search/worker/run_trial.py and search/study/limits.py.
BEFORE = {
    "config": '{"model":{"kind":"dncnn","layers":3,"width":4}}' * 40,
    "parameters": 45_000,
    "gmacs_at_256": 2.5,
    "steps": 400,
    "seed": 17,
    "data": "0" * 16,
    "device": "cpu (1 threads)",
    "versions": '{"python": "3.11", "torch": "2.13", "optuna": "5.0"}',
}
WEIGHED = {"ms_per_megapixel": 300.0, "memory_mb_per_megapixel": 700.0, "macs": 2.5e9}
PROGRESS = {
    "rungs": '[{"step":200,"psnr_db":20.0,"ssim":0.8}]' * 4,
    "steps_done": 400,
    "seconds": 12.0,
    "seconds_per_step": 0.03,
    "peak_memory_mb": 300.0,
}
FACTS = {"psnr_db": 20.0, "ssim": 0.8, "mae": 0.04}

QUEUES: dict[str, Queue] = {}
"""By study: of trials that have ended it keeps what it has read."""

Trial = Callable[[Study, float], bool]


def score(number: int, percent: int) -> float:
    return 20 + number % 97 / 10 + percent / 100


def ours(study: Study, seconds: float, most: int) -> bool:
    """A trial as in the workers of this project; False if there is none left."""
    rules = Rules(LADDER, most, timeout=1e9, search_share=1.0, finish_share=0.5, keep=10)
    queue = QUEUES.setdefault(study.study_name, Queue(study, rules))
    queue.rules = rules
    if not isinstance(next_action(queue.snapshot(WorkerView()), 0.0), Begin):
        return False
    sampling = optuna.samplers.RandomSampler
    trial = begin_trial(study, most, lambda number: sampling(seed=number), **{GOAL: 100})
    if trial is None:
        return False
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_int("width", 4, 64)
    change_trial(study, trial._trial_id, BEFORE)
    change_trial(study, trial._trial_id, WEIGHED)
    for percent in LADDER.percents():
        time.sleep(seconds / 3)
        trial.report(score(trial.number, percent), percent)
    change_trial(study, trial._trial_id, {**FACTS, **PROGRESS})
    record_facts(trial, ended="finished")
    study.tell(trial, score(trial.number, 100))
    return True


def plain(study: Study, seconds: float, most: int) -> bool:
    """A trial with the same writes, as in Optuna's documentation."""
    trial = study.ask()
    if trial.number >= most:
        study.tell(trial, state=TrialState.FAIL)
        return False
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_int("width", 4, 64)
    for name, value in {OWNER: this_process(), GOAL: 100, **BEFORE, **WEIGHED}.items():
        trial.set_user_attr(name, value)
    for percent in LADDER.percents():
        time.sleep(seconds / 3)
        trial.report(score(trial.number, percent), percent)
    for name, value in {**FACTS, **PROGRESS, "ended": "finished"}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, score(trial.number, 100))
    return True


def opened(url: str, way: str) -> Study:
    """The study, created if needed: by this project, or by Optuna with its own journal mode or a write-ahead log."""
    if way == "ours":
        database = open_database(url, create=True)
    else:
        database = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        if way == "plain, wal":
            with database.engine.connect() as connection:
                connection.exec_driver_sql("pragma journal_mode = wal")
    sampler = optuna.samplers.RandomSampler()
    return optuna.create_study(
        study_name="s", storage=database, sampler=sampler, direction="maximize", load_if_exists=True
    )


def work(url: str, way: str, most: int, errors: Any) -> None:
    try:
        study, one = opened(url, way), ours if way == "ours" else plain
        with Heartbeat(study):
            while one(study, SECONDS, most):
                pass
    except BaseException as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise


def look(url: str, way: str, over: Any, errors: Any, looks: Any) -> None:
    """Read everything once a second, as a dashboard does that has just been started."""
    try:
        while not over.wait(1.0):
            opened(url, way).get_trials()
            looks.value += 1
    except BaseException as error:
        errors.put(f"dashboard: {type(error).__name__}: {error}")
        raise


def race(way: str, trials: int, workers: int, folder: Path) -> float:
    """Trials per second; prints what went wrong."""
    url = f"sqlite:///{folder / way.replace(', ', '-')}.db"
    context = multiprocessing.get_context("fork")  # spawned processes would import for longer than they work
    maker = context.Process(target=opened, args=(url, way))  # not here: no connection may be forked
    maker.start()
    maker.join()
    errors, over, looks = context.Queue(), context.Event(), context.Value("i", 0)
    poller = context.Process(target=look, args=(url, way, over, errors, looks))
    processes = [context.Process(target=work, args=(url, way, trials, errors)) for _ in range(workers)]
    for process in [poller, *processes]:
        process.start()
    for process in processes:
        process.join()
    over.set()
    poller.join()
    study = opened(url, way)
    done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    names = {GOAL, OWNER, "ended", *BEFORE, *WEIGHED, *FACTS, *PROGRESS}
    lost = sum(
        t.intermediate_values != {p: score(t.number, p) for p in LADDER.percents()}
        or not names <= t.user_attrs.keys()
        for t in done
    )
    # The first workers begin while the last are still starting: time counts from the first trial.
    begun, ended = (
        [getattr(t, f"datetime_{when}").timestamp() for t in done] for when in ("start", "complete")
    )
    rate = len(done) / (max(ended) - min(begun))
    wrong = [errors.get() for _ in range(errors.qsize())]
    print(
        f"{way}: {len(done)} of {trials} trials, {rate:.1f} a second, {lost} with something lost, "
        f"{looks.value} looks of the dashboard, {len(wrong)} errors {wrong[:2] or ''}",
        flush=True,
    )
    return rate


def growth(counts: list[int], folder: Path) -> None:
    """Milliseconds that a trial costs in a study of so many, sleep and sampler aside; the median of 40."""
    study = opened(f"sqlite:///{folder / 'growth.db'}", "ours")
    values = {p: score(0, p) for p in LADDER.percents()}
    facts = {GOAL: 100, OWNER: {}, **BEFORE, **WEIGHED, **FACTS, **PROGRESS, "ended": "finished"}
    done = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=21.0,
        params={"lr": 0.01, "width": 8},
        distributions={
            "lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
            "width": optuna.distributions.IntDistribution(4, 64),
        },
        user_attrs=facts,
        intermediate_values=values,
    )
    study.add_trial(done)
    costs: list[float] = []
    for count in counts:
        _copy_first(folder / "growth.db", count)
        QUEUES.clear()
        study = opened(f"sqlite:///{folder / 'growth.db'}", "ours")
        assert len(study.get_trials(deepcopy=False)) == count
        seconds = []
        for number in range(40):
            began = time.perf_counter()
            assert ours(study, 0.0, count + number + 1)
            seconds.append(time.perf_counter() - began)
        costs.append(1000 * statistics.median(seconds))
        print(f"among {count} trials one costs {costs[-1]:.1f} ms", flush=True)
    print(f"{costs[-1] / costs[0]:.2f} times as much")


def _copy_first(path: Path, count: int) -> None:
    """Fill a study up to so many trials with copies of the first: by Optuna that would take minutes."""
    tables = {
        "trial_params": "param_name, param_value, distribution_json",
        "trial_values": "objective, value, value_type",
        "trial_user_attributes": "key, value_json",
        "trial_intermediate_values": "step, intermediate_value, intermediate_value_type",
    }
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        (last,) = database.execute("select max(trial_id) from trials").fetchone()
        for number in range(last, count):
            facts = "study_id, state, datetime_start, datetime_complete"
            database.execute(
                f"insert into trials (trial_id, number, {facts}) select ?, ?, {facts} from trials where trial_id = 1",
                (number + 1, number),
            )
            for table, columns in tables.items():
                database.execute(
                    f"insert into {table} (trial_id, {columns}) select ?, {columns} from {table} where trial_id = 1",
                    (number + 1,),
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument(
        "--growth", metavar="N,N", help="measure the cost of a trial in studies of so many instead"
    )
    parser.add_argument("--ways", default="ours;plain;plain, wal")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storage-") as folder:
        if given.growth:
            growth([int(count) for count in given.growth.split(",")], Path(folder))
            return
        rates = {way: race(way, given.trials, given.workers, Path(folder)) for way in given.ways.split(";")}
    for way, rate in rates.items():
        if way != "ours" and "ours" in rates:
            print(f"ours beside {way}: {rates['ours'] / rate:.2f}")


if __name__ == "__main__":
    main()
