"""`run` with worker processes: starts them, displays their progress, replaces those that crash."""

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
    is_under_way,
    make_writable,
    record_study,
    record_worker_death,
    release_abandoned_trial,
    study_folder,
    this_process,
)
from search.errors import UserError
from search.launch.events import show_event
from search.launch.hidden_url import with_hidden_url
from search.launch.in_process import SearchOutcome, progress_display, search_outcome
from search.study import StudySpec
from search.terminal import Progress
from search.worker import Measure, PreparedSearch, RunOptions, StopSignals, compile_operator, prepare_search

CHECK_INTERVAL_S = 2.0
# A worker that is asked to stop saves its trial first; it may have to finish scoring an image before that.
STOP_TIMEOUT_S = 25.0
# A worker that fails so often in a row before its first event is not started again.
MAX_FAILED_STARTS = 4
EXIT_CODE_LOST = 256
"""Exit code that stands for a worker whose machine or actor was lost."""


class WorkerProcess(Protocol):
    """The part of `subprocess.Popen` that a supervisor uses; the process may be on another machine."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


StartWorker = Callable[[int, Mapping[str, str], Path], tuple[WorkerProcess, Iterable[str]]]
"""Starts the worker of this index with these flags and this log file; its process, and the lines of its events."""


@dataclass
class _WorkerHandle:
    """A worker process, and whether it has sent an event."""

    index: int
    process: WorkerProcess
    log: Path
    has_begun: bool = False


@dataclass
class _Supervisor:
    """Keeps one worker process running for each device."""

    spec: StudySpec
    options: RunOptions
    devices: tuple[torch.device, ...]
    prepared: PreparedSearch
    progress: Progress
    stop: StopSignals
    started: float
    start_worker: StartWorker
    workers: dict[int, _WorkerHandle] = field(default_factory=dict)
    events: "queue.Queue[tuple[_WorkerHandle, str]]" = field(default_factory=queue.Queue)
    lease_monitor: LeaseMonitor = field(default_factory=LeaseMonitor)
    any_worker_finished: bool = False
    """True once a worker has ended normally, because nothing was left to do."""
    failed_starts: "collections.Counter[int]" = field(default_factory=collections.Counter)

    def work(self) -> None:
        """Run until all workers have ended normally. Those that crash are replaced."""
        for index in range(len(self.devices)):
            self._start(index)
        last_check = time.monotonic()
        while self.workers and not self.stop.requested:
            self._show_events(0.2)
            abandoned: list[FrozenTrial] = []
            if time.monotonic() - last_check > CHECK_INTERVAL_S:
                last_check = time.monotonic()
                abandoned = self.lease_monitor.abandoned_trials(self.prepared.study)
            # Own workers come first: their exit code says why their trial was abandoned.
            for worker in list(self.workers.values()):
                if worker.process.poll() is not None:
                    self._handle_exit(worker)
            self._release(abandoned)
            if not self.workers and self._has_interrupted_trial():
                self._start(0)

    def end(self) -> None:
        """Ask all workers to save their trials and stop; kill those that do not in time, and release their trials."""
        for worker in self.workers.values():
            worker.process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while any(worker.process.poll() is None for worker in self.workers.values()):
            if time.monotonic() > deadline:
                self.kill()
            self._show_events(0.1)
        self._show_events(0.0)
        self._release(self.lease_monitor.abandoned_trials(self.prepared.study))

    def kill(self) -> None:
        for worker in self.workers.values():
            worker.process.kill()
            worker.process.wait()

    def _start(self, index: int) -> None:
        folder = study_folder(self.options.out, self.prepared.study)
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
        process, lines = self.start_worker(index, arguments, log)
        worker = self.workers[index] = _WorkerHandle(index, process, log)
        threading.Thread(target=self._read, args=(worker, lines), daemon=True).start()

    def _read(self, worker: _WorkerHandle, lines: Iterable[str]) -> None:
        for line in lines:
            self.events.put((worker, line))

    def _show_events(self, seconds: float) -> None:
        """Display the events of workers for so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                worker, line = self.events.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return
            worker.has_begun = True
            self.failed_starts[worker.index] = 0
            show_event(line, self.progress, f"{worker.index}")

    def _handle_exit(self, worker: _WorkerHandle) -> None:
        self._show_events(0.05)
        del self.workers[worker.index]
        self.progress.worker_ended(f"{worker.index}")
        code = worker.process.returncode
        assert code is not None
        if code == 0:
            self.any_worker_finished = True
            return
        if code == 2:
            raise UserError(_last_errors(worker.log))
        how = _describe_exit(code)
        self.progress.say(f"worker {worker.index} died: {how}")
        for trial in LeaseMonitor().abandoned_trials(self.prepared.study):
            if facts_of(trial).owner.get("pid") != worker.process.pid:
                continue
            why = record_worker_death(self.prepared.study, trial, how)
            if why is None:
                self.progress.say(f"trial {trial.number} goes on from its last state")
            else:
                self.progress.ended("failed", None, trial.number)
                self.progress.say(f"trial {trial.number}: {why}")
        self.failed_starts[worker.index] += not worker.has_begun
        if self.failed_starts[worker.index] < MAX_FAILED_STARTS:
            self._start(worker.index)
            return
        why = f"worker {worker.index} died {MAX_FAILED_STARTS} times before it began ({how})"
        if not (self.workers or self.any_worker_finished):
            raise UserError(f"{why}; {worker.log} has its last words:\n{_last_errors(worker.log)}")
        self.progress.say(f"{why}, and is left out; {worker.log} has its last words")

    def _release(self, abandoned: Iterable[FrozenTrial]) -> None:
        """Put abandoned trials back in the queue, unless another process has done so."""
        for trial in abandoned:
            if release_abandoned_trial(self.prepared.study, trial):
                self.progress.say(f"trial {trial.number}: its worker is gone; it goes on from its last state")

    def _has_interrupted_trial(self) -> bool:
        """True if a trial waits on the way to a rung: there is work left though all workers have ended."""
        return any(
            trial.state == TrialState.WAITING and is_under_way(trial)
            for trial in self.prepared.study.get_trials(deepcopy=False)
        )


def start_local_worker(
    index: int, arguments: Mapping[str, str], log: Path
) -> tuple[WorkerProcess, Iterable[str]]:
    """Start a worker as a process of this machine."""
    command = [sys.executable, "-m", "search", "worker", "--supervised"]
    flags, environment = with_hidden_url(arguments)
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.PIPE,  # closes when this process ends: then the worker stops
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
    assert process.stdout is not None
    return process, process.stdout


def run_with_workers(
    spec: StudySpec,
    options: RunOptions,
    devices: tuple[torch.device, ...],
    start_worker: StartWorker = start_local_worker,
    measure: Measure | None = None,
) -> SearchOutcome:
    """Search with a process for each device until the trials or the time of the study are used up, or until Ctrl-C.

    `start_worker` starts the processes and `measure` measures the training speed; by default on this machine.

    Another call continues the search: interrupted trials first, then new ones. Raises `UserError` if a worker
    ends with one.
    """
    make_writable(options.out)
    compile_operator(spec, options)
    started = time.monotonic()
    share_cores(devices)
    prepared = prepare_search(spec, options, measure)
    latest_run = {
        "started": time.time(),
        "timeout": spec.timeout,
        "workers": len(devices),
        "input_psnr_db": prepared.input_psnr_db,
        "owner": this_process(),
    }
    record_study(prepared.study, latest_run=latest_run)
    heartbeat = Heartbeat(prepared.study)
    with (
        heartbeat,
        StopSignals(lambda: heartbeat.stop_requested) as stop,
        progress_display(spec, prepared, started, options.quiet) as progress,
    ):
        for line in prepared.lines:
            progress.say(line)
        if len(devices) > 1:
            progress.say(f"{len(devices)} workers: {', '.join(map(str, devices))}")
        supervisor = _Supervisor(spec, options, devices, prepared, progress, stop, started, start_worker)
        try:
            supervisor.work()
            supervisor.end()
        except UserError:
            supervisor.end()
            raise
        finally:
            supervisor.kill()
            record_study(prepared.study, latest_run={**latest_run, "owner": None})
    return search_outcome(prepared, stopped=stop.requested)


def share_cores(devices: Sequence[torch.device]) -> None:
    """Set the number of threads to what each worker on the CPU gets: an equal share of the cores, at least one."""
    if on_cpu := sum(device.type == "cpu" for device in devices):
        torch.set_num_threads(max(torch.get_num_threads() // on_cpu, 1))


def _describe_exit(code: int) -> str:
    """The exit code of a process in words."""
    if code == EXIT_CODE_LOST:
        return "its machine is gone, or its place there"
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name} (perhaps out of memory)" if -code == signal.SIGKILL else name


def _last_errors(log: Path) -> str:
    """The error output of the latest start of a worker."""
    text = (
        log.read_text(encoding="utf-8", errors="replace").rpartition("\n--- ")[2].partition("\n")[2].strip()
    )
    message = text.rpartition("search worker: ")[2] if "search worker: " in text else text
    return os.linesep.join(message.splitlines()[-20:]) or "(nothing)"
