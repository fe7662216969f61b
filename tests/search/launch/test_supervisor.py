"""`run` and its worker processes, some of which die."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
import torch

from search.__main__ import main
from search.database import FrozenTrial, TrialState, default_storage_url, load_study, request_stop
from search.database.trial_facts import DEATHS, OWNER
from search.errors import UserError
from search.launch import run_with_workers, supervisor
from search.launch.events import EventStream, show_event
from search.study import load_spec
from search.terminal import Progress
from search.worker import RunOptions
from tests.search.runs import ROOT, at_work, started, wait_until

StudyFile = Callable[..., Path]

# Trials of some seconds, with a rung every few steps.
LONG = ("steps = 8", "steps = 3000"), ("evaluations = 4", "evaluations = 100")


def trials(out: Path) -> list[FrozenTrial]:
    return load_study("tiny", default_storage_url(out)).trials


def workers(process: "subprocess.Popen[str]") -> dict[int, psutil.Process]:
    """Its workers, by index."""
    found = {}
    for child in psutil.Process(process.pid).children():
        if "--index" in (line := child.cmdline()):
            found[int(line[line.index("--index") + 1])] = child
    return found


def test_two_workers_share_a_study_and_one_that_is_killed_costs_no_trial(
    study_file: StudyFile, out: Path
) -> None:
    path = study_file(*LONG, ("rungs = 0", "rungs = 1"))
    with started(path, out, "--workers", "2", "--trials", "3") as process:
        wait_until(lambda: at_work(out, 0) and at_work(out, 1))
        owner = trials(out)[1].user_attrs[OWNER]
        assert owner != trials(out)[0].user_attrs[OWNER]
        os.kill(owner["pid"], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
    assert re.search(
        r"worker \d died: SIGKILL \(perhaps out of memory\)\ntrial 1 goes on from its last state", stdout
    )
    found = trials(out)
    assert [trial.number for trial in found] == [0, 1, 2]
    assert sorted(trial.state.name for trial in found) == ["COMPLETE", "PRUNED", "PRUNED"]
    (death,) = found[1].user_attrs[DEATHS]
    assert death["how"].startswith("SIGKILL")


def test_ctrl_c_saves_what_workers_are_at_and_stop_does_so_from_elsewhere(
    study_file: StudyFile, out: Path
) -> None:
    path = study_file(("steps = 8", "steps = 300000"), ("evaluations = 4", "evaluations = 100"))
    for way in ("Ctrl-C", "stop"):
        with started(path, out, "--workers", "2") as process:
            wait_until(lambda: (out / "search.db").exists() and at_work(out, 0) and at_work(out, 1))
            wait_until(lambda: [t.state for t in trials(out)] == [TrialState.RUNNING] * 2)
            began = time.monotonic()
            if way == "Ctrl-C":
                process.send_signal(signal.SIGINT)
            else:
                request_stop(load_study("tiny", default_storage_url(out)))
            stdout, stderr = process.communicate(timeout=60)
        assert time.monotonic() - began < 30
        assert (process.returncode, stderr) == (130, "")
        assert stdout.count("kept to go on") == 2
        assert "stopped; go on with" in stdout
        assert [trial.state for trial in trials(out)] == [TrialState.WAITING] * 2
        assert [trial.user_attrs[OWNER] for trial in trials(out)] == [{}, {}]


def test_what_a_worker_cannot_do_either_ends_the_run_with_its_words(study_file: StudyFile, out: Path) -> None:
    path = study_file()
    assert main(["run", "--study", str(path), "--out", str(out), "--trials", "1", "--quiet"]) == 0
    # The database names pairs that the worker then does not find: `run` writes down its own elsewhere.
    study = load_study("tiny", default_storage_url(out))
    code = (
        "from search.worker import search_setup; search_setup.record_study = lambda study, spec, data: None"
    )
    program = f"import sys; {code}; from search.__main__ import main; sys.exit(main(sys.argv[1:]))"
    study.set_user_attr("data", "other pairs")
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "--study", str(path), "--out", str(out), "--trials", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("search run: study 'tiny' works on other pairs than those found here")
    assert len(done.stderr.splitlines()) == 1


def test_worker_joins_by_hand_and_says_when_there_is_nothing_to_join(
    study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.launch.join.WAIT_FOR_STUDY_S", 0.0)
    path = study_file()
    assert main(["run", "--study", str(path), "--out", str(out), "--trials", "1", "--quiet"]) == 0
    assert main(["worker", "--study", "tinny", "--out", str(out)]) == 2
    assert "did you mean" in capsys.readouterr().err
    study = load_study("tiny", default_storage_url(out))
    spec = study.user_attrs["spec"]
    study.set_user_attr("spec", spec.replace('"trials":1', '"trials":2'))
    assert main(["worker", "--study", "tiny", "--out", str(out)]) == 0
    assert [trial.state for trial in trials(out)] == [TrialState.COMPLETE] * 2
    study.set_user_attr("sitting", {"started": time.time() - 100, "timeout": 60.0, "workers": 1})
    assert main(["worker", "--study", "tiny", "--out", str(out)]) == 2
    assert "the time of its last `run` is over" in capsys.readouterr().err


def test_wire_shows_at_its_other_end_what_a_worker_shows(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    event_stream = EventStream(stream)
    event_stream.start("trial 3", 0, 100)
    for step in range(1, 51):
        event_stream.stepped(step, 100, 0.125)
    event_stream.scored(28.5)
    event_stream.say("a [line] that stays")
    event_stream.ended("done", 29.0, 3)
    event_stream.ended("pruned", None, 4)
    shown = Progress("tiny", 20.0, 4, time.monotonic() + 100, quiet=False)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6  # not one for each step
    for line in lines:
        show_event(line, shown, "1")
    row = shown.rows["1"]
    assert (row.label, row.step, row.steps, row.loss, row.psnr_db) == ("trial 3", 1, 100, 0.125, 28.5)
    assert shown.best == (29.0, "trial 3")
    assert shown.counts == {"done": 1, "pruned": 1, "failed": 0}
    assert capsys.readouterr().out == "a [line] that stays\n"
    stream.close()
    event_stream.say("nobody hears this")


def test_rows_of_several_workers_are_shown_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("tiny", 20.0, 4, time.monotonic() + 100, quiet=False)
    for worker in ("1", "0"):
        shown.start(f"trial {worker}", 0, 10, worker=worker)
    shown.console.print(shown._render())
    lines = capsys.readouterr().out.splitlines()
    assert ["trial 0" in lines[1], "trial 1" in lines[2]] == [True, True]
    shown.worker_ended("0")
    shown.console.print(shown._render())
    assert len(capsys.readouterr().out.splitlines()) == 2


class FakeProcess:
    """A worker process that says nothing, and ends with this exit code once `ends` is true."""

    pid = 0

    def __init__(self, code: int, ends: Callable[[], bool]) -> None:
        self.code, self.ends = code, ends
        self.returncode: int | None = None

    def poll(self) -> int | None:
        self.returncode = self.code if self.ends() else None
        return self.returncode

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self) -> int:
        return self.code


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_that_never_begins_is_left_out_and_the_last_one_ends_the_run(
    workers: int, study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []

    def start_worker(
        index: int, arguments: Mapping[str, str], log: Path
    ) -> tuple[supervisor.WorkerProcess, list[str]]:
        started.append(index)
        log.write_text("--- now\nno memory\n", "utf-8")
        if index == 0:
            return FakeProcess(-9, lambda: True), []
        # The other is at work for as long as the first is tried.
        return FakeProcess(0, lambda: started.count(0) == supervisor.MAX_FAILED_STARTS), []

    cpu = torch.device("cpu")
    how = RunOptions(default_storage_url(out), out, cpu), (cpu,) * workers, start_worker
    spec = load_spec(str(study_file()))
    if workers == 1:
        with pytest.raises(
            UserError, match=r"(?s)worker 0 died 4 times before it began \(SIGKILL.*no memory"
        ):
            run_with_workers(spec, *how)
    else:
        run_with_workers(spec, *how)
        assert "worker 0 died 4 times before it began" in capsys.readouterr().out
    assert started.count(0) == supervisor.MAX_FAILED_STARTS


@pytest.mark.parametrize(
    ("code", "words"), [(1, "exit code 1"), (-9, "SIGKILL (perhaps out of memory)"), (-11, "SIGSEGV")]
)
def test_end_of_a_process_in_words(code: int, words: str) -> None:
    assert supervisor._describe_exit(code) == words


def test_error_output_is_that_of_the_latest_start(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    log.write_text(
        "--- then\nsearch worker: old\n--- now\nnoise\nsearch worker: new\nin two lines\n", "utf-8"
    )
    assert supervisor._last_errors(log).splitlines() == ["new", "in two lines"]
    log.write_text("--- now\nTraceback\nboom\n", "utf-8")
    assert supervisor._last_errors(log).splitlines() == ["Traceback", "boom"]
    log.write_text("--- now\n", "utf-8")
    assert supervisor._last_errors(log) == "(nothing)"
