"""Joining a search that a `run` has started, on this machine or another."""

import os
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from search.database import Heartbeat, Study, StudyFacts, load_study, study_facts_of, without_password
from search.errors import UserError
from search.inference import device_name, limit_memory
from search.launch.events import EventStream
from search.study import StudySpec
from search.terminal import Progress, Shows
from search.worker import RunOptions, StopSignals, Worker, WorkerLoop, open_data

WAIT_FOR_STUDY_S = 120.0
"""Longest time that a worker waits until the study that it joins exists."""


@dataclass(frozen=True)
class JoinOptions:
    """Settings of a worker that joins a search."""

    study: str
    options: RunOptions
    threads: int | None = None
    """Number of CPU threads."""
    data: Path | None = None
    """Folder of the pairs on this machine; None if it is the one that the study names."""
    scan_dir: str | None = None
    clean_dir: str | None = None
    pair_by: str | None = None
    elapsed: float | None = None
    """Seconds since the search began; None: as its `run` has recorded."""
    event_stream: IO[str] | None = None
    """Receives all events for display, where another process displays them."""


def join_search(join: JoinOptions) -> bool:
    """Work on a study until nothing is left to do; True if the worker was asked to stop.

    `UserError` if there is no such study, if its time is over, or if the pairs on this machine differ.
    """
    if join.threads is not None:
        torch.set_num_threads(join.threads)
    if join.options.memory is not None:
        limit_memory(join.options.memory)
    began = time.monotonic()
    study = _wait_for_study(join)
    facts = study_facts_of(study)
    spec = StudySpec.model_validate_json(facts.spec or "")
    # Trials record the folder that the study names: an export reads the pairs from there.
    here = (
        spec
        if join.data is None
        else with_data_elsewhere(spec, join.data, join.scan_dir, join.clean_dir, join.pair_by)
    )
    elapsed = join.elapsed if join.elapsed is not None else _elapsed_seconds(facts, spec)
    split = open_data(here, join.options.out)
    if split.fingerprint != facts.data:
        raise UserError(
            f"study {spec.name!r} works on other pairs than those found here ({split.note}); --data names a folder"
        )
    started = began - elapsed
    heartbeat = Heartbeat(study)
    with (
        heartbeat,
        StopSignals(lambda: heartbeat.stop_requested) as stop,
        _display(join, spec, started) as progress,
    ):
        if join.event_stream is not None:
            threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
        if join.event_stream is None:
            progress.say(f"{spec.name}: joined; {split.note}; {device_name(join.options.device)}")
        worker = Worker(spec, join.options, study, split, stop, progress, heartbeat)
        WorkerLoop(worker, started).run()
    return stop.requested


def with_data_elsewhere(
    spec: StudySpec, data: Path, scan_dir: str | None, clean_dir: str | None, pair_by: str | None
) -> StudySpec:
    """The same spec for the same pairs in another folder, `data`, of this machine."""
    here = spec.with_data(data, scan_dir, clean_dir, pair_by)
    before = spec.recipe.get("data", {})
    kept = {key: before[key] for key in ("channels", "pair_by") if key in before}
    return here.with_changes(recipe={**here.recipe, "data": {**kept, **here.recipe["data"]}})


def _wait_for_study(join: JoinOptions) -> Study:
    """The study; waits until a `run` has created it."""
    began, has_announced = time.monotonic(), join.options.quiet
    while True:
        try:
            study = load_study(join.study, join.options.storage)
            if study_facts_of(study).spec is not None:
                return study
            missing = UserError(
                f"study {join.study!r} is from before workers could join; `run` opens it anew"
            )
        except UserError as error:
            missing = error
        if join.event_stream is not None or time.monotonic() - began > WAIT_FOR_STUDY_S:
            raise missing
        if not has_announced:
            has_announced = True
            why = str(missing).replace(without_password(join.options.storage), "the database").splitlines()[0]
            print(
                f"waiting {WAIT_FOR_STUDY_S / 60:g} minutes at most for `run` to begin: {why}",
                file=sys.stderr,
            )
        time.sleep(1.0)


def _elapsed_seconds(facts: StudyFacts, spec: StudySpec) -> float:
    latest_run = facts.latest_run
    if not latest_run:
        return 0.0
    elapsed: float = max(time.time() - latest_run["started"], 0.0)
    if elapsed > latest_run["timeout"]:
        raise UserError(f"study {spec.name!r}: the time of its last `run` is over; start another one first")
    return elapsed


def _display(join: JoinOptions, spec: StudySpec, started: float) -> Any:
    """The display of this process, or the stream of its events, as a context manager."""
    if join.event_stream is None:
        return Progress(spec.name, float("nan"), spec.trials, started + spec.timeout, join.options.quiet)
    event_stream: Shows = EventStream(join.event_stream)
    return nullcontext(event_stream)


def _end_with_parent(stop: StopSignals) -> None:
    """Stop when standard input closes: the process that started this one has ended."""
    while os.read(0, 4096):
        pass
    stop.request()
