"""Run a study in this process, with one worker."""

import time
from dataclasses import dataclass

from search.database import Heartbeat, best_trial, kind_of_end, make_writable
from search.inference import limit_memory
from search.study import StudySpec
from search.terminal import Progress
from search.worker import Opened, RunOptions, StopSignals, Worker, WorkerLoop, compile_operator, open_search


@dataclass(frozen=True)
class SearchOutcome:
    """How a run ended: the best trial so far, and whether someone asked it to stop."""

    best_number: int | None
    best_psnr_db: float
    input_psnr_db: float
    stopped: bool


def run_in_process(spec: StudySpec, options: RunOptions) -> SearchOutcome:
    """Work on a study until its trials or its time are used up, or Ctrl-C.

    Calling it again goes on: with the interrupted trial first, then with new ones.
    """
    make_writable(options.out)
    if options.memory is not None:
        limit_memory(options.memory)
    compile_operator(spec, options)
    started = time.monotonic()
    opened = open_search(spec, options)
    pulse = Heartbeat(opened.study)
    with (
        pulse,
        StopSignals(lambda: pulse.stop_wished) as stop,
        display_of_run(spec, opened, started, options.quiet) as progress,
    ):
        for line in opened.lines:
            progress.say(line)
        worker = Worker(opened.spec, options, opened.study, opened.split, stop, progress, pulse)
        WorkerLoop(worker, started).run()
    return outcome_of_run(opened, stopped=stop.requested)


def display_of_run(spec: StudySpec, opened: Opened, started: float, quiet: bool) -> Progress:
    """What is shown of a search, with what earlier runs found."""
    progress = Progress(spec.name, opened.input_psnr_db, spec.trials, started + spec.timeout, quiet)
    for trial in opened.study.get_trials(deepcopy=False):
        if kind := kind_of_end(trial.state):
            progress.ended(kind, trial.value, trial.number)
    return progress


def outcome_of_run(opened: Opened, *, stopped: bool) -> SearchOutcome:
    """What a search has come to."""
    best = best_trial(opened.study)
    return SearchOutcome(
        best_number=best.number if best else None,
        best_psnr_db=best.value if best and best.value is not None else float("nan"),
        input_psnr_db=opened.input_psnr_db,
        stopped=stopped,
    )
