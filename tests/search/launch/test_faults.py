"""Faults injected for real: processes killed, a server stopped, disks full, files damaged."""

import collections
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from search.__main__ import main
from search.database import (
    TrialState,
    begin_trial,
    claim_trial,
    default_storage_url,
    load_study,
    open_database,
    record_facts,
    release_trial,
    sqlite,
    this_process,
)
from search.database.trial_facts import OWNER
from search.launch import run_in_process
from search.study import load_spec
from search.worker import RunOptions
from search.worker.callback import TrialCallback
from tests import postgres
from tests.benchmarks import faults
from tests.benchmarks import storage as many

StudyFile = Callable[..., Path]
Trials = Callable[..., list[optuna.trial.FrozenTrial]]
CLAIMANTS, CLAIMED, BEGUN = 4, 12, 6


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server; the test is skipped where it is not installed."""
    if why := postgres.missing():
        pytest.skip(why)
    # Not in a folder of pytest's: those are closed to other users, and the server is one.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres.server(Path(folder) / "postgresql") as started:
            yield started


def claim_all(url: str, barrier: Any, claimed: Any) -> None:
    """Claim every trial at the same moment as others do, then begin new ones."""
    opened = optuna.load_study(study_name="tiny", storage=open_database(url, create=False))
    for waiting in opened.get_trials(deepcopy=False):
        barrier.wait(30)
        if claim_trial(opened, waiting, lambda number: optuna.samplers.RandomSampler()):
            claimed.put(waiting.number)
    while trial := begin_trial(opened, CLAIMED + BEGUN, lambda number: optuna.samplers.RandomSampler()):
        claimed.put(trial.number)
    claimed.put(None)


def make(url: str) -> None:
    """A study of trials that wait."""
    database = open_database(url, create=True)
    opened = optuna.create_study(study_name="tiny", storage=database)
    for _ in range(CLAIMED):
        opened.enqueue_trial({})


def count(url: str, counted: Any) -> None:
    """Number of trials at the end."""
    counted.put(len(optuna.load_study(study_name="tiny", storage=open_database(url, create=False)).trials))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_trial_is_claimed_by_one_of_many_processes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = default_storage_url(tmp_path) if kind == "sqlite" else request.getfixturevalue("server").url
    context = multiprocessing.get_context("fork")
    barrier, claimed = context.Barrier(CLAIMANTS), context.Queue()

    maker = context.Process(target=make, args=(url,))  # not here: no connection may be forked
    processes = [context.Process(target=claim_all, args=(url, barrier, claimed)) for _ in range(CLAIMANTS)]
    maker.start()
    maker.join(30)
    for process in processes:
        process.start()
    numbers, ended = collections.Counter[int](), 0
    while ended < CLAIMANTS:
        number = claimed.get(timeout=240)
        if number is None:
            ended += 1
        else:
            numbers[number] += 1
    assert numbers == dict.fromkeys(range(CLAIMED + BEGUN), 1)
    context.Process(target=count, args=(url, claimed)).start()
    assert claimed.get(timeout=240) == CLAIMED + BEGUN


def test_processes_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    tally = faults.Tally()
    path = faults.write_study(tmp_path, "faulty", trials=3, steps=100)
    url = default_storage_url(tmp_path / "runs")
    faults.run_with_faults(random.Random(0), path, tmp_path / "runs", url, workers=2, faults=1, tally=tally)
    assert tally.wrong == []
    assert sum(tally.faults.values()) == 1


def test_search_interrupted_five_times_has_the_same_trials(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file(("trials = 2", "trials = 3"), ("rungs = 0", "rungs = 1, factor = 2"))
    steps, stepped = [0], TrialCallback.stepped

    def interrupt(self: TrialCallback, step: int, of: int, loss: torch.Tensor) -> None:
        steps[0] += 1
        if steps[0] in (1, 5, 6, 9, 14):
            os.kill(os.getpid(), signal.SIGTERM)
        stepped(self, step, of, loss)

    tables, stops = [], []
    for name in ("once", "often"):
        out = tmp_path / name
        options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
        while run_in_process(load_spec(str(path)), options).stopped:
            stops.append(name)
        tables.append(faults.finished(load_study("tiny", options.storage).get_trials()))
        monkeypatch.setattr(TrialCallback, "stepped", interrupt)
    assert stops == ["often"] * 5
    assert len(tables[0]) == 3
    assert tables[0] == tables[1]


def test_worker_that_ends_a_trial_that_is_no_longer_its_own_leaves_it_to_the_other(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped, other = TrialCallback.stepped, {**this_process(), "worker": "other"}

    def lose(self: TrialCallback, step: int, of: int, loss: torch.Tensor) -> None:
        stepped(self, step, of, loss)
        if self.trial.number == 0 and step == of:
            self.trial.set_user_attr(OWNER, other)

    monkeypatch.setattr(TrialCallback, "stepped", lose)
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    run_in_process(load_spec(str(study_file())), options)
    assert [trial.state for trial in trials()] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert trials()[0].user_attrs[OWNER] == other


def test_many_workers_on_one_file_lose_no_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    many.race("ours", 24, 3, tmp_path)
    said = capfd.readouterr().out
    assert "24 of 24 trials" in said
    assert "0 with something lost" in said
    assert "0 errors" in said


def test_server_that_is_away_for_a_while_is_waited_for(server: postgres.Server) -> None:
    database = open_database(server.url, create=True)
    opened = optuna.create_study(storage=database)
    trial = begin_trial(opened, 99, lambda number: optuna.samplers.RandomSampler())
    assert trial is not None
    server.stop()
    back = threading.Timer(0.5, server.start)
    back.start()
    record_facts(trial, steps=1, seed=2)
    back.join()
    trial.report(20.0, 50)
    opened.tell(trial, 21.0)
    (found,) = opened.get_trials()
    opened._storage.remove_session()
    database.engine.dispose()
    assert (found.value, found.intermediate_values) == (21.0, {50: 20.0})
    assert (found.user_attrs["steps"], found.user_attrs["seed"]) == (1, 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_stops_a_search_that_goes_on_once_there_is_room(
    study_file: StudyFile,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, filler, stepped = small_disk / "runs", small_disk / "filler", TrialCallback.stepped

    def fill(self: TrialCallback, step: int, of: int, loss: torch.Tensor) -> None:
        stepped(self, step, of, loss)
        if self.trial.number == 1 and step == 3:
            with filler.open("wb") as file:
                while file.write(bytes(4096)):
                    file.flush()

    monkeypatch.setattr(TrialCallback, "stepped", lambda *given: fill_quietly(fill, *given))
    command = ["run", "--study", str(study_file()), "--out", str(out), "--quiet", "--device", "cpu"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "full" in said or "space" in said
    assert len(said.splitlines()) <= 2
    monkeypatch.setattr(TrialCallback, "stepped", stepped)
    filler.unlink()
    url = default_storage_url(out)
    first = faults.finished(load_study("tiny", url).get_trials())
    assert list(first) == [0]
    assert faults.damage(url) == []
    left = load_study("tiny", url)
    for trial in left.get_trials(states=(TrialState.RUNNING,)):
        release_trial(left, trial)  # another process would see that we are gone
    assert main(command) == 0
    after = faults.finished(load_study("tiny", url).get_trials())
    assert list(after) == [0, 1]
    assert after[0] == first[0]


def fill_quietly(fill: Callable[..., None], *given: Any) -> None:
    try:
        fill(*given)
    except OSError as error:
        assert error.errno == 28


@pytest.mark.parametrize("where", [0, 4096, 20_000])
def test_damaged_database_is_refused_with_what_to_do(
    where: int, explored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(explored, out)
    database = out / "search.db"
    sqlite3.connect(database).execute("pragma wal_checkpoint(truncate)").connection.close()
    whole = database.read_bytes()
    noise = random.Random(where).randbytes(4096)
    database.write_bytes(whole[:where] + noise + whole[where + len(noise) :])
    command = ["run", "--study", str(explored.parent / "tiny.toml"), "--out", str(out), "--quiet"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert str(database) in said
    assert "damaged" in said or "not a database" in said or "malformed" in said
    assert len(said.splitlines()) <= 2
    database.write_bytes(whole)
    sqlite._damage.cache_clear()  # another process would look for itself
    assert main(command) == 0


def test_runs_copied_away_and_back_go_on(explored: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    shutil.copytree(explored, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", out)
    url = default_storage_url(out)
    before = faults.finished(load_study("tiny", url).get_trials())
    command = ["run", "--study", str(explored.parent / "tiny.toml"), "--out", str(out), "--quiet"]
    assert main([*command, "--trials", "4"]) == 0
    after = faults.finished(load_study("tiny", url).get_trials())
    assert len(after) == 4
    assert {number: after[number] for number in before} == before


def test_clock_that_jumps_back_an_hour_changes_nothing(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped, now = TrialCallback.stepped, time.time

    def jump(self: TrialCallback, step: int, of: int, loss: torch.Tensor) -> None:
        stepped(self, step, of, loss)
        if self.trial.number == 0 and step == 3:
            monkeypatch.setattr(time, "time", lambda: now() - 3600)
            self.heartbeat.beat_once()

    tables = []
    for name in ("steady", "jumping"):
        options = RunOptions(
            default_storage_url(tmp_path / name), tmp_path / name, torch.device("cpu"), quiet=True
        )
        run_in_process(load_spec(str(study_file())), options)
        tables.append(faults.finished(load_study("tiny", options.storage).get_trials()))
        monkeypatch.setattr(TrialCallback, "stepped", jump)
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]


def test_folder_that_cannot_be_written_is_refused_and_left_as_it_was(
    explored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(explored, out)
    bind = [["mount", "--bind", str(out), str(out)], ["mount", "-o", "remount,ro,bind", str(out)]]
    if os.getuid() != 0 or any(subprocess.run(line, capture_output=True).returncode for line in bind):
        pytest.skip("only root can make a folder read-only for itself")
    command = ["run", "--study", str(explored.parent / "tiny.toml"), "--out", str(out), "--quiet"]
    try:
        assert main([*command, "--trials", "4"]) == 2
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)
    said = capsys.readouterr().err
    assert "cannot write" in said
    assert len(said.splitlines()) <= 2
    assert main([*command, "--trials", "4"]) == 0
