"""`run` with worker processes: starts them, shows what they do, and makes good what the dead leave behind."""

import collections
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from search.database import (
    FrozenTrial,
    Heartbeat,
    LeaseMonitor,
    TrialState,
    facts_of,
    hand_back_dead,
    is_under_way,
    make_writable,
    record_death,
    record_study,
    study_folder,
    this_process,
)
from search.errors import UserError
from search.launch.events import show_event
from search.launch.hidden_url import with_hidden_url
from search.launch.in_process import SearchOutcome, display_of_run, outcome_of_run
from search.study import StudySpec
from search.terminal import Progress
from search.worker import Measure, Opened, RunOptions, StopSignals, compile_operator, open_search

LOOK_EVERY_S = 2.0
# Whoever is asked to stop saves its trial; some need a validation image to end before.
STOPPING_S = 25.0
# A worker that dies so often in a row before it begins will not do better the next time.
MOST_FALSE_STARTS = 4
LOST = 256
"""The exit code of a worker that nothing more is known of: the machine that it ran on is gone."""


class WorkerProcess(Protocol):
    """A worker's process, as `subprocess.Popen` has it, here or elsewhere."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


StartWorker = Callable[[int, Mapping[str, str], Path], tuple[WorkerProcess, Iterable[str]]]
"""Starts worker number N with these flags and this file for its errors; the lines that it will say."""


@dataclass
class _Member:
    """A worker process, and what it says."""

    index: int
    process: WorkerProcess
    log: Path
    spoke: bool = False


@dataclass
class _Crew:
    spec: StudySpec
    options: RunOptions
    devices: tuple[torch.device, ...]
    opened: Opened
    progress: Progress
    stop: StopSignals
    started: float
    hire: StartWorker
    members: dict[int, _Member] = field(default_factory=dict)
    said: "queue.Queue[tuple[_Member, str]]" = field(default_factory=queue.Queue)
    watchman: LeaseMonitor = field(default_factory=LeaseMonitor)
    went_home: bool = False
    """Whether a worker has ended in order: there was nothing left to do."""
    false_starts: "collections.Counter[int]" = field(default_factory=collections.Counter)

    def work(self) -> None:
        """Until all workers have ended in order. Those that die are replaced."""
        for index in range(len(self.devices)):
            self._start(index)
        last_look = time.monotonic()
        while self.members and not self.stop.requested:
            self._listen(0.2)
            dead: list[FrozenTrial] = []
            if time.monotonic() - last_look > LOOK_EVERY_S:
                last_look = time.monotonic()
                dead = self.watchman.dead(self.opened.study)
            # Whoever was found dead and is one of ours is seen to have ended here, and why is known.
            for member in list(self.members.values()):
                if member.process.poll() is not None:
                    self._ended(member)
            self._bury(dead)
            if not self.members and self._left_over():
                self._start(0)

    def end(self) -> None:
        """Ask all workers to save their trials and stop, and hand back what those leave who do not."""
        for member in self.members.values():
            member.process.terminate()
        deadline = time.monotonic() + STOPPING_S
        while any(member.process.poll() is None for member in self.members.values()):
            if time.monotonic() > deadline:
                self.kill()
            self._listen(0.1)
        self._listen(0.0)
        self._bury(self.watchman.dead(self.opened.study))

    def kill(self) -> None:
        for member in self.members.values():
            member.process.kill()
            member.process.wait()

    def _start(self, index: int) -> None:
        folder = study_folder(self.options.out, self.opened.study)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"worker-{index}.log"
        elapsed = time.monotonic() - self.started
        arguments = {
            "--study": self.spec.name,
            "--storage": self.options.storage,
            "--out": str(self.options.out),
            "--device": str(self.devices[index]),
            "--index": str(index),
            "--workers": str(len(self.devices)),
            "--elapsed": f"{elapsed:.1f}",
        }
        on_cpu = sum(device.type == "cpu" for device in self.devices)
        if self.devices[index].type == "cpu":
            arguments["--threads"] = str(torch.get_num_threads())
        if self.options.memory is not None:
            arguments["--memory"] = f"{self.options.memory / max(on_cpu, 1) / 2**20:.0f}M"
        with log.open("a", encoding="utf-8") as errors:
            print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", file=errors, flush=True)
        process, lines = self.hire(index, arguments, log)
        member = self.members[index] = _Member(index, process, log)
        threading.Thread(target=self._read, args=(member, lines), daemon=True).start()

    def _read(self, member: _Member, lines: Iterable[str]) -> None:
        for line in lines:
            self.said.put((member, line))

    def _listen(self, seconds: float) -> None:
        """Show what workers say, for so long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                member, line = self.said.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return
            member.spoke = True
            self.false_starts[member.index] = 0
            show_event(line, self.progress, f"{member.index}")

    def _ended(self, member: _Member) -> None:
        self._listen(0.05)
        del self.members[member.index]
        self.progress.gone(f"{member.index}")
        code = member.process.returncode
        assert code is not None
        if code == 0:
            self.went_home = True
            return
        if code == 2:
            raise UserError(_last_words(member.log))
        how = _in_words(code)
        self.progress.say(f"worker {member.index} died: {how}")
        for trial in LeaseMonitor().dead(self.opened.study):
            if facts_of(trial).owner.get("pid") != member.process.pid:
                continue
            why = record_death(self.opened.study, trial, how)
            if why is None:
                self.progress.say(f"trial {trial.number} goes on from its last state")
            else:
                self.progress.ended("failed", None, trial.number)
                self.progress.say(f"trial {trial.number}: {why}")
        self.false_starts[member.index] += not member.spoke
        if self.false_starts[member.index] < MOST_FALSE_STARTS:
            self._start(member.index)
            return
        why = f"worker {member.index} died {MOST_FALSE_STARTS} times before it began ({how})"
        if not (self.members or self.went_home):
            raise UserError(f"{why}; {member.log} has its last words:\n{_last_words(member.log)}")
        self.progress.say(f"{why}, and is left out; {member.log} has its last words")

    def _bury(self, dead: Iterable[FrozenTrial]) -> None:
        """Hand back trials of workers that have died, unless that is done."""
        for trial in dead:
            if hand_back_dead(self.opened.study, trial):
                self.progress.say(f"trial {trial.number}: its worker is gone; it goes on from its last state")

    def _left_over(self) -> bool:
        """Whether a trial that was begun is nobody's, though all workers have gone home."""
        return any(
            trial.state == TrialState.WAITING and is_under_way(trial)
            for trial in self.opened.study.get_trials(deepcopy=False)
        )


def start_local_worker(
    index: int, arguments: Mapping[str, str], log: Path
) -> tuple[WorkerProcess, Iterable[str]]:
    """A worker as a process of this machine."""
    command = [sys.executable, "-m", "search", "worker", "--supervised"]
    flags, environment = with_hidden_url(arguments)
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.PIPE,  # closes when we die: then they stop
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for us to pass on
        )
    assert process.stdout is not None
    return process, process.stdout


def run_with_workers(
    spec: StudySpec,
    options: RunOptions,
    devices: tuple[torch.device, ...],
    hire: StartWorker = start_local_worker,
    measure: Measure | None = None,
) -> SearchOutcome:
    """Work on a study with a process for each device, until its trials or its time are used up, or Ctrl-C.

    `hire` starts the processes, `measure` says how fast models train: on this machine, unless given.

    Calling it again goes on: with what was interrupted first, then with new trials. `UserError` for
    whatever a worker cannot do either.
    """
    make_writable(options.out)
    compile_operator(spec, options)
    started = time.monotonic()
    share_cores(devices)
    opened = open_search(spec, options, measure)
    sitting = {
        "started": time.time(),
        "timeout": spec.timeout,
        "workers": len(devices),
        "input_psnr_db": opened.input_psnr_db,
        "owner": this_process(),
    }
    record_study(opened.study, sitting=sitting)
    pulse = Heartbeat(opened.study)
    with (
        pulse,
        StopSignals(lambda: pulse.stop_wished) as stop,
        display_of_run(spec, opened, started, options.quiet) as progress,
    ):
        for line in opened.lines:
            progress.say(line)
        if len(devices) > 1:
            progress.say(f"{len(devices)} workers: {', '.join(map(str, devices))}")
        crew = _Crew(spec, options, devices, opened, progress, stop, started, hire)
        try:
            crew.work()
            crew.end()
        except UserError:
            crew.end()
            raise
        finally:
            crew.kill()
            record_study(opened.study, sitting={**sitting, "owner": None})
    return outcome_of_run(opened, stopped=stop.requested)


def share_cores(devices: Sequence[torch.device]) -> None:
    """Give this process the threads that each worker on the CPU gets: its share of the cores, one at least."""
    if on_cpu := sum(device.type == "cpu" for device in devices):
        torch.set_num_threads(max(torch.get_num_threads() // on_cpu, 1))


def _in_words(code: int) -> str:
    """How a process ended, from its exit code."""
    if code == LOST:
        return "its machine is gone, or its place there"
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name} (perhaps out of memory)" if -code == signal.SIGKILL else name


def _last_words(log: Path) -> str:
    """What a worker last wrote as an error."""
    text = (
        log.read_text(encoding="utf-8", errors="replace").rpartition("\n--- ")[2].partition("\n")[2].strip()
    )
    told = text.rpartition("search worker: ")[2] if "search worker: " in text else text
    return os.linesep.join(told.splitlines()[-20:]) or "(nothing)"
