"""A worker joins a search that a `run` has opened, on this machine or another."""

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

OPENING_S = 120.0
"""A worker may come so long before the study that it is to join."""


@dataclass(frozen=True)
class JoinOptions:
    """How a worker joins."""

    study: str
    options: RunOptions
    threads: int | None = None
    """Processor threads to compute with."""
    data: Path | None = None
    """Where the pairs are on this machine, if not where the study has them."""
    scan_dir: str | None = None
    clean_dir: str | None = None
    elapsed: float | None = None
    """Seconds of the search that are over; what its `run` has written down if None."""
    wire: IO[str] | None = None
    """Where everything that is to be shown goes, if someone else shows it."""


def join_search(how: JoinOptions) -> bool:
    """Work on a study until nothing is left to do; whether someone asked to stop.

    `UserError` if there is no such study, its time is over, or the pairs here are others.
    """
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    if how.options.memory is not None:
        limit_memory(how.options.memory)
    began = time.monotonic()
    study = _opened(how)
    facts = study_facts_of(study)
    spec = StudySpec.model_validate_json(facts.spec or "")
    # Trials are recorded with the pairs where the study has them: whoever exports one looks there.
    here = spec if how.data is None else with_data_elsewhere(spec, how.data, how.scan_dir, how.clean_dir)
    elapsed = how.elapsed if how.elapsed is not None else _elapsed(facts, spec)
    split = open_data(here, how.options.out)
    if split.fingerprint != facts.data:
        raise UserError(
            f"study {spec.name!r} works on other pairs than those found here ({split.note}); --data names a folder"
        )
    started = began - elapsed
    pulse = Heartbeat(study)
    with pulse, StopSignals(lambda: pulse.stop_wished) as stop, _display(how, spec, started) as progress:
        if how.wire is not None:
            threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
        if how.wire is None:
            progress.say(f"{spec.name}: joined; {split.note}; {device_name(how.options.device)}")
        worker = Worker(spec, how.options, study, split, stop, progress, pulse)
        WorkerLoop(worker, started).run()
    return stop.requested


def with_data_elsewhere(
    spec: StudySpec, data: Path, scan_dir: str | None, clean_dir: str | None
) -> StudySpec:
    """The same search on the same pairs, which are in folder `data` of this machine."""
    here = spec.with_data(data, scan_dir, clean_dir)
    before = spec.recipe.get("data", {})
    kept = {"channels": before["channels"]} if "channels" in before else {}
    return here.with_changes(recipe={**here.recipe, "data": {**kept, **here.recipe["data"]}})


def _opened(how: JoinOptions) -> Study:
    """The study, once a `run` has opened it."""
    began, told = time.monotonic(), how.options.quiet
    while True:
        try:
            study = load_study(how.study, how.options.storage)
            if study_facts_of(study).spec is not None:
                return study
            missing = UserError(f"study {how.study!r} is from before workers could join; `run` opens it anew")
        except UserError as error:
            missing = error
        if how.wire is not None or time.monotonic() - began > OPENING_S:
            raise missing
        if not told:
            told = True
            why = str(missing).replace(without_password(how.options.storage), "the database").splitlines()[0]
            print(f"waiting {OPENING_S / 60:g} minutes at most for `run` to begin: {why}", file=sys.stderr)
        time.sleep(1.0)


def _elapsed(facts: StudyFacts, spec: StudySpec) -> float:
    sitting = facts.sitting
    if not sitting:
        return 0.0
    elapsed: float = max(time.time() - sitting["started"], 0.0)
    if elapsed > sitting["timeout"]:
        raise UserError(f"study {spec.name!r}: the time of its last `run` is over; start another one first")
    return elapsed


def _display(how: JoinOptions, spec: StudySpec, started: float) -> Any:
    """What is shown in this process, as a context."""
    if how.wire is None:
        return Progress(spec.name, float("nan"), spec.trials, started + spec.timeout, how.options.quiet)
    wire: Shows = EventStream(how.wire)
    return nullcontext(wire)


def _end_with_parent(stop: StopSignals) -> None:
    """Whoever started us holds the other end of our input: when that closes, they are gone."""
    while os.read(0, 4096):
        pass
    stop.request()
