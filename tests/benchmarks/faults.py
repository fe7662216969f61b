"""Searches whose processes are killed at random moments until they complete, and what is lost.

python -m tests.benchmarks.faults --runs 100
python -m tests.benchmarks.faults --runs 10 --workers 4 --storage postgresql://...
"""

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy

from search.database import (
    FrozenTrial,
    TrialState,
    default_storage_url,
    has_begun,
    load_study,
    process_has_ended,
)
from search.database.trial_facts import OWNER
from search.errors import UserError
from tests import postgres
from tests.conftest import write_pairs

STUDY = """
name = "{name}"
trials = {trials}
timeout = "1h"
sampler = "random"
ladder = {{ rungs = 1, factor = 2 }}

[recipe]
steps = {steps}
evaluations = 2
precision = "fp32"
crops = {{ batch = 2, patch = 8 }}
model = {{ kind = "dncnn", layers = 3, width = 4 }}

[recipe.optimizer]
kind = "adamw"
lr = {{ low = 1e-3, high = 1e-2, log = true }}

[recipe.data]
kind = "pairs"
dir = "{data}"
"""
LONGEST_S = 240.0
"""A study that has not completed after so long hangs."""


@dataclass
class Tally:
    """Counts of events and errors over all studies."""

    studies: int = 0
    runs: int = 0
    """Starts of the command, the last ones included, which nothing interrupted."""
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    seen: int = 0
    """Finished trials that were seen before a fault."""
    wrong: list[str] = field(default_factory=list)


def write_study(folder: Path, name: str, trials: int, steps: int) -> Path:
    """A study file of trials that take a second, and its pairs."""
    if not (folder / "pairs").exists():
        write_pairs(folder / "pairs" / "train", [f"page-{n}" for n in range(5)], seed=1)
        write_pairs(folder / "pairs" / "val", [f"page-{n}" for n in range(5, 8)], seed=2)
    path = folder / f"{name}.toml"
    text = STUDY.format(name=name, trials=trials, steps=steps, data=folder / "pairs")
    path.write_text(text, encoding="utf-8")
    return path


def start(study: Path, out: Path, url: str, workers: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start `run` as a process."""
    with log.open("ab") as said:
        flags = {
            "--study": study,
            "--out": out,
            "--storage": url,
            "--workers": workers,
            "--device": "cpu",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "search", "run", *(str(word) for pair in flags.items() for word in pair)],
            stdout=said,
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def trials_of(name: str, url: str) -> list[FrozenTrial]:
    """The trials in the database; empty while there is no study."""
    try:
        return load_study(name, url).get_trials(deepcopy=False)
    except UserError:
        return []


def finished(trials: Sequence[FrozenTrial]) -> dict[int, tuple[Any, ...]]:
    """Facts of finished trials by number: they must not change."""
    return {
        t.number: (t.state, t.value, t.params, t.intermediate_values) for t in trials if t.state.is_finished()
    }


def kill_at_random(rng: random.Random, run: "subprocess.Popen[bytes]") -> str | None:
    """Kill the command or one of its workers; in words what was killed, or None if it had ended."""
    try:
        workers = [p for p in psutil.Process(run.pid).children() if "worker" in p.cmdline()]
        whole = rng.random() < 0.35 or not workers
        victim = psutil.Process(run.pid) if whole else rng.choice(workers)
        number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        victim.send_signal(number)
    except psutil.NoSuchProcess:
        return None
    return f"{number.name} {'run' if whole else 'worker'}"


def run_with_faults(
    rng: random.Random, study: Path, out: Path, url: str, workers: int, faults: int, tally: Tally
) -> None:
    """Run a study to its end with so many faults; errors are counted in `tally`."""
    name, log = study.stem, out.parent / f"{study.stem}.log"
    known: dict[int, tuple[Any, ...]] = {}
    run, began = start(study, out, url, workers, log), time.monotonic()
    tally.runs += 1
    tally.studies += 1
    while True:
        # Some faults come while processes start; most are to hit trials.
        if faults > 0 and rng.random() < 0.7:
            _wait_for_a_running_trial(name, url, run)
        pause = rng.uniform(0.0, 3.0) if faults > 0 else 0.3
        try:
            code = run.wait(pause)
        except subprocess.TimeoutExpired:
            if faults > 0:
                _compare(name, known, trials_of(name, url), tally)
                if how := kill_at_random(rng, run):
                    tally.faults[how] += 1
                    faults -= 1
            if time.monotonic() - began > LONGEST_S:
                tally.wrong.append(f"{name}: hangs, see {log}")
                run.kill()
                run.wait()
                return
            continue
        if code == 0:
            break
        if code not in (-signal.SIGKILL, -signal.SIGTERM, 130):
            tally.wrong.append(f"{name}: `run` ended with {code}, see {log}")
        run = start(study, out, url, workers, log)
        tally.runs += 1
    # Workers that lost their `run` end by themselves.
    time.sleep(0.5)
    trials = trials_of(name, url)
    _compare(name, known, trials, tally)
    wanted = int(study.read_text().partition("trials = ")[2].split()[0])
    begun = [t for t in trials if has_begun(t)]
    if len(begun) != wanted:
        tally.wrong.append(f"{name}: {len(begun)} trials begun, {wanted} asked for")
    for trial in begun:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            why = trial.user_attrs.get("ended", "")
            tally.wrong.append(f"{name}: trial {trial.number} is {trial.state.name} {why}")
    numbers = [t.number for t in trials]
    if numbers != list(range(len(trials))):
        tally.wrong.append(f"{name}: numbers {numbers}")
    drawn = collections.Counter(str(t.params) for t in begun)
    tally.wrong += [f"{name}: drawn twice: {one}" for one, times in drawn.items() if times > 1]
    tally.wrong += [f"{name}: {line}" for line in damage(url)]
    if "Traceback" in log.read_text():
        tally.wrong.append(f"{name}: a traceback in {log}")
    for worker_log in (out / name).glob("worker-*.log"):
        if "Traceback" in (text := worker_log.read_text()) and "KeyboardInterrupt" not in text:
            tally.wrong.append(f"{name}: a traceback in {worker_log}")


def _wait_for_a_running_trial(name: str, url: str, run: "subprocess.Popen[bytes]") -> None:
    began = time.monotonic()
    while run.poll() is None and time.monotonic() - began < LONGEST_S:
        if any(
            t.state == TrialState.RUNNING and not process_has_ended(t.user_attrs[OWNER])
            for t in trials_of(name, url)
        ):
            return
        time.sleep(0.1)


def _compare(
    name: str, known: dict[int, tuple[Any, ...]], trials: Sequence[FrozenTrial], tally: Tally
) -> None:
    """Add finished trials to `known`, and report those that have changed."""
    now = finished(trials)
    for number, facts in known.items():
        if now.get(number) != facts:
            tally.wrong.append(f"{name}: finished trial {number} lost: was {facts}, is {now.get(number)}")
    tally.seen += len(now.keys() - known.keys())
    known.update(now)


def damage(url: str) -> list[str]:
    """Faults that SQLite's integrity check finds; empty for servers."""
    engine = sqlalchemy.create_engine(url)
    if engine.name != "sqlite":
        return []
    with engine.connect() as connection:
        found = [str(row[0]) for row in connection.exec_driver_sql("pragma integrity_check")]
    engine.dispose()
    return [] if found == ["ok"] else found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="faults in all")
    parser.add_argument("--each", type=int, default=5, help="faults per study")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--postgresql", action="store_true", help="a server in place of an SQLite file")
    parser.add_argument(
        "--outage", metavar="SECONDS", type=float, help="stop that server for so long instead"
    )
    parser.add_argument("--resumed", metavar="N", type=int, help="interrupt one worker so often instead")
    parser.add_argument("--seconds", type=float, help="begin no other study after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folder, to look at")
    given = parser.parse_args()
    tally, folder = Tally(), Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o755)  # the server is another user
    with contextlib.ExitStack() as stack:
        database = None
        if given.postgresql or given.outage:
            database = stack.enter_context(postgres.server(folder / "postgresql"))
        url = database.url if database else default_storage_url(folder / "runs")
        if given.resumed:
            resumed(folder, given.trials, given.steps, given.resumed, tally)
        elif given.outage and database:
            outage(database, folder, given.workers, given.trials, given.steps, given.outage, tally)
        else:
            _run_all_with_faults(given, folder, url, tally)
    for line in tally.wrong:
        print(line)
    if not tally.wrong and not given.keep:
        shutil.rmtree(folder)
    sys.exit(bool(tally.wrong))


def _run_all_with_faults(given: argparse.Namespace, folder: Path, url: str, tally: Tally) -> None:
    rng, began = random.Random(given.seed), time.monotonic()
    while sum(tally.faults.values()) < given.runs:
        study = write_study(folder, f"study-{given.seed}-{tally.studies}", given.trials, given.steps)
        each = min(given.each, given.runs - sum(tally.faults.values()))
        run_with_faults(rng, study, folder / "runs", url, given.workers, each, tally)
        if given.seconds and time.monotonic() - began > given.seconds:
            break
    print(_summary(tally, time.monotonic() - began), flush=True)


def resumed(folder: Path, trials: int, steps: int, times: int, tally: Tally) -> None:
    """A study run in one go and the same one interrupted so often, one worker each: do their tables agree?"""
    tables = []
    for interruptions in (0, times):
        out = folder / f"runs-{interruptions}"
        url, log = default_storage_url(out), folder / f"{out.name}.log"
        study = write_study(folder, "resumed", trials, steps)
        run = start(study, out, url, 1, log)
        for number in range(interruptions):
            _wait_for_a_running_trial(study.stem, url, run)
            time.sleep(0.3 + 0.4 * number)
            run.terminate()
            if (code := run.wait()) != 130:
                tally.wrong.append(f"interruption {number + 1} came too late: exit code {code}")
            run = start(study, out, url, 1, log)
        run.wait()
        tables.append(finished(trials_of(study.stem, url)))
    once, often = tables
    if len(once) != trials or once != often:
        tally.wrong.append(f"in one go {once}\ninterrupted {often}")
    print(
        f"{len(once)} trials, interrupted {times} times and not: {'equal' if once == often else 'DIFFERENT'}"
    )


def outage(
    server: postgres.Server, folder: Path, workers: int, trials: int, steps: int, seconds: float, tally: Tally
) -> None:
    """Stop and restart the database server during a run: does the run complete?"""
    study, log = write_study(folder, "outage", trials, steps), folder / "outage.log"
    run = start(study, folder / "runs", server.url, workers, log)
    _wait_for_a_running_trial(study.stem, server.url, run)
    time.sleep(1.0)
    before = finished(trials_of(study.stem, server.url))
    server.stop()
    time.sleep(seconds)
    lived = run.poll() is None
    server.start()
    code, after = run.wait(), finished(trials_of(study.stem, server.url))
    deaths = log.read_text().count("died:")
    if not lived or code != 0 or len(after) != trials or deaths or any(after[n] != before[n] for n in before):
        tally.wrong.append(
            f"exit code {code}, lived {lived}, {deaths} workers died, trials {after}; see {log}"
        )
    print(
        f"server away for {seconds:.0f} s in mid-run with {workers} workers: {len(before)} trials finished before, "
        f"{len(after)} of {trials} in the end, {deaths} workers died, exit code {code}"
    )


def _summary(tally: Tally, seconds: float) -> str:
    kinds: Mapping[str, int] = dict(sorted(tally.faults.items()))
    return (
        f"{sum(kinds.values())} faults ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}) in {tally.studies} "
        f"studies, {tally.runs} runs, {seconds:.0f} s: all completed, {tally.seen} finished trials noted, "
        f"{len(tally.wrong)} things wrong"
    )


if __name__ == "__main__":
    main()
