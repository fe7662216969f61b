"""Run a study: its trials one after another, then the finale."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data import DataConfig, Split
from search import space, storage
from search.errors import UserError
from search.progress import Progress
from search.storage import FINALE, LABEL, REPLACED, TrialState
from search.study import StudySpec, close
from search.trial.config import TrialConfig
from search.trial.evaluate import Score, mean_score, score_image, spread
from search.trial.rescue import limit_memory
from search.watch import StopSignals
from search.worker import Options as Options
from search.worker import Worker, device_name, starting_point

# The finale is planned for this share of the time left: its speed is known only from short trials.
FINALE_SAFETY = 0.93


@dataclass(frozen=True)
class Outcome:
    """How `run` ended: the best trial so far, and whether someone asked it to stop."""

    best_number: int | None
    best_psnr_db: float
    input_psnr_db: float
    stopped: bool


def run(spec: StudySpec, options: Options) -> Outcome:
    """Work on a study until its trials or its time are used up, or Ctrl-C.

    Calling it again goes on: with the interrupted trial first, then with new ones.
    """
    storage.make_writable(options.out)
    if options.memory is not None:
        limit_memory(options.memory)
    started = time.monotonic()
    split = open_data(spec, options.out)
    study = storage.open_study(spec, options.storage, continue_with_changes=options.continue_with_changes)
    for corner in map(close, space.corners(spec.recipe)):
        if corner.initial is not None:
            starting_point(corner.initial, options.storage, options.out)
    resumed = storage.reclaim(study)
    if not study.trials:
        for known in spec.first:
            study.enqueue_trial(
                dict(known.values), user_attrs={LABEL: known.name, REPLACED: dict(known.recipe)}
            )
    val_megapixels = close(space.corners(spec.recipe)[0]).val_megapixels
    judged = spread(split.val, val_megapixels)
    input_psnr_db = unchanged(split, judged).psnr_db
    with (
        StopSignals() as stop,
        Progress(
            spec.name, input_psnr_db, spec.trials, time.time() + spec.timeout, options.quiet
        ) as progress,
    ):
        search = _Search(Worker(spec, options, study, split, stop, progress), started)
        progress.say(
            f"{spec.name}: {split.note}; {device_name(options.device)}\n"
            f"trials are scored on {len(judged)} validation pairs, input {input_psnr_db:.2f} dB"
        )
        if resumed:
            progress.say(
                f"going on with trial {', '.join(map(str, resumed))}, left behind by a run that died"
            )
        search.go()
    best = storage.best_trial(study)
    return Outcome(
        best_number=best.number if best else None,
        best_psnr_db=best.value if best and best.value is not None else float("nan"),
        input_psnr_db=input_psnr_db,
        stopped=stop.requested,
    )


def open_data(spec: StudySpec, out: Path) -> Split:
    """The pairs that a study works on. The split never depends on the study's seed."""
    split = data_of(spec).open(seed=0, cache=out)
    check_channels(spec, split.channels)
    return split


def data_of(spec: StudySpec) -> DataConfig:
    """Where the pairs of a study come from: never an open leaf."""
    return close(space.fill(spec.recipe, space.RandomSuggester(0))).data


def check_channels(spec: StudySpec, channels: int) -> None:
    """Raises `UserError` if the recipe fixes another number of channels than the images have."""
    for corner in space.corners(spec.recipe):
        fixed = corner["model"].get("channels", channels)
        if fixed != channels:
            raise UserError(
                f"recipe.model.channels is {fixed}, but the images have {channels}: "
                f"leave it out, or set recipe.data.channels = {fixed}"
            )


def unchanged(split: Split, indices: Iterable[int]) -> Score:
    """What these validation images score as they are."""
    pairs = (split.val.whole(index) for index in indices)
    return mean_score([score_image(pair.degraded, pair.clean) for pair in pairs], step=0, seconds=0.0)


class _Search:
    """One sitting of a study."""

    def __init__(self, worker: Worker, started: float) -> None:
        self.worker, self.started = worker, started
        self.spec, self.study, self.progress = worker.spec, worker.study, worker.progress
        self.study.pruner = storage.pruner()

    def go(self) -> None:
        while self._search_goes_on():
            self.study.sampler = storage.sampler(self.spec, storage.next_number(self.study))
            self.worker.work_on(self.study.ask())
        if not self.worker.stop.requested and self.spec.finale > 0:
            self._finale()
        if not self.worker.durations:
            self.progress.say(f"all {self.spec.trials} trials are done; a larger --trials searches on")

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _search_goes_on(self) -> bool:
        if self.worker.stop.requested:
            return False
        trials = self.study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING and trial.datetime_start for trial in trials):
            return True
        if self._trials_used_up():
            return False
        expected = statistics.median(self.worker.durations) if self.worker.durations else 0.0
        return self._elapsed() + expected <= self.spec.timeout * (1 - self.spec.finale)

    def _trials_used_up(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        searched = [t for t in trials if t.state.is_finished() and FINALE not in t.user_attrs]
        return len(searched) >= self.spec.trials

    def _finale(self) -> None:
        """Train the best recipe from scratch: for the time that is left, or, where the search ended for
        its number of trials, with the same ratio of compute (which does not depend on the clock)."""
        best = storage.best_trial(self.study)
        if best is None or self.worker.spent_teramacs == 0:
            return
        config = TrialConfig.model_validate_json(best.user_attrs["config"])
        spent = config.teramacs_per_step * best.user_attrs["steps_done"]
        training = best.user_attrs["seconds_per_step"] * best.user_attrs["steps_done"]
        # Validation takes as long, however long the training.
        validation = max(best.user_attrs["seconds"] - training, 0.0)
        left = (self.spec.timeout - self._elapsed()) * FINALE_SAFETY - validation
        teramacs = spent / training * left
        if self._trials_used_up():
            teramacs = min(teramacs, self.worker.spent_teramacs * self.spec.finale / (1 - self.spec.finale))
        if teramacs <= spent:
            self.progress.say("no finale: the time left would not train the best recipe any longer")
            return
        attributes = {LABEL: "finale", FINALE: teramacs, REPLACED: best.user_attrs.get(REPLACED, {})}
        self.worker.work_on(storage.start_again(self.study, best, attributes))
