"""Run a study in this process, with one worker."""

import time
from dataclasses import dataclass

from search.database import Heartbeat, best_trial, kind_of_end, make_writable
from search.inference import limit_memory
from search.study import StudySpec
from search.terminal import Progress
from search.worker import (
    PreparedSearch,
    RunOptions,
    StopSignals,
    Worker,
    WorkerLoop,
    compile_operator,
    prepare_search,
)


@dataclass(frozen=True)
class SearchOutcome:
    """Result of a run: the best trial so far, and whether the run was asked to stop."""

    best_number: int | None
    best_psnr_db: float
    input_psnr_db: float
    stopped: bool


def run_in_process(spec: StudySpec, options: RunOptions) -> SearchOutcome:
    """Search until the trials or the time of the study are used up, or until Ctrl-C.

    Another call continues the search: first the interrupted trial, then new ones.
    """
    make_writable(options.out)
    if options.memory is not None:
        limit_memory(options.memory)
    compile_operator(spec, options)
    started = time.monotonic()
    prepared = prepare_search(spec, options)
    heartbeat = Heartbeat(prepared.study)
    with (
        heartbeat,
        StopSignals(lambda: heartbeat.stop_requested) as stop,
        progress_display(spec, prepared, started, options.quiet) as progress,
    ):
        for line in prepared.lines:
            progress.say(line)
        worker = Worker(prepared.spec, options, prepared.study, prepared.split, stop, progress, heartbeat)
        WorkerLoop(worker, started).run()
    return search_outcome(prepared, stopped=stop.requested)


def progress_display(spec: StudySpec, prepared: PreparedSearch, started: float, quiet: bool) -> Progress:
    """A progress display of the search that already lists the trials of earlier runs."""
    progress = Progress(spec.name, prepared.input_psnr_db, spec.trials, started + spec.timeout, quiet)
    for trial in prepared.study.get_trials(deepcopy=False):
        if kind := kind_of_end(trial.state):
            progress.ended(kind, trial.value, trial.number)
    return progress


def search_outcome(prepared: PreparedSearch, *, stopped: bool) -> SearchOutcome:
    """The outcome of a run, read from the database."""
    best = best_trial(prepared.study)
    return SearchOutcome(
        best_number=best.number if best else None,
        best_psnr_db=best.value if best and best.value is not None else float("nan"),
        input_psnr_db=prepared.input_psnr_db,
        stopped=stopped,
    )
