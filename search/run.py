"""Run a study: its trials one after another up the ladder, then the finale."""

import json
import math
import shutil
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from data import DataConfig, PairsConfig, Split
from search import checkup, confirm, samples, space, storage, warm
from search.errors import UserError
from search.ladder import TOP, Climber, hopeless, leader, promotable, ranked
from search.progress import Progress
from search.speed import seconds_per_step
from search.storage import GOAL, LABEL, LENGTH, REPLACED, FrozenTrial, Trial, TrialState
from search.study import ANY_LENGTH, StudySpec, close
from search.trial.config import TrialConfig
from search.trial.evaluate import Score, mean_score, score_image, spread
from search.trial.rescue import limit_memory
from search.trial.train import Stopped
from search.watch import StopSignals
from search.worker import Options as Options
from search.worker import Worker, device_name, starting_point

# Most of the time that goes to measuring how long a training can be.
MEASURING_SHARE = 0.03
# The last stretch is planned for this share of the time left.
FINALE_SAFETY = 0.97
# A cooldown takes at least this share of a training, however little time is left for it.
SHORTEST_COOLDOWN = 0.15
# A training of fixed length may take so many times the time left.
MOST_OVER = 1.25


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
    for corner in (close(ANY_LENGTH | tree) for tree in space.corners(spec.recipe)):
        if corner.initial is not None:
            starting_point(corner.initial, options.storage, options.out)
    resumed = storage.reclaim(study)
    if "steps" not in spec.recipe and storage.FULL not in study.user_attrs:
        study.set_user_attr(storage.FULL, full_teramacs(spec, split, options.device))
    is_new, carried = not study.trials, list[str]()
    if options.warm_start is not None:
        warm.start(study, spec, options.warm_start, options.storage, split.fingerprint, carried.append)
    if is_new:
        for known in spec.first:
            study.enqueue_trial(
                dict(known.values), user_attrs={LABEL: known.name, REPLACED: dict(known.recipe)}
            )
    val_megapixels = any_config(spec).val_megapixels
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
        for line in carried:
            progress.say(line)
        if isinstance(data := data_of(spec), PairsConfig):
            for line in checkup.warnings_for_a_search(data.dir, data.scan_dir, data.clean_dir):
                progress.say(f"check: {line}")
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
    return any_config(spec).data


def any_config(spec: StudySpec) -> TrialConfig:
    """A trial of the study: for what is the same in all of them."""
    return close(ANY_LENGTH | space.fill(spec.recipe, space.RandomSuggester(0)))


def full_teramacs(spec: StudySpec, split: Split, device: torch.device) -> float:
    """The full length of a training that the study's time allows: what the last stretch of one can be.

    From the speed of recipes from all over the space on this device, or, for a short study, of the first.
    """
    speed = samples.typical_speed(
        samples.Recipes(spec, split.channels),
        lambda config: seconds_per_step(config, split, device),
        MEASURING_SHARE * spec.timeout,
    )
    return affordable_teramacs(spec, speed)


def affordable_teramacs(spec: StudySpec, speed: float) -> float:
    """The length of a training whose last stretch takes the time of the finale at `speed` (10^12 a second)."""
    stretch = 1 - 1 / spec.ladder.factor
    return speed * spec.timeout * spec.finale / stretch


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
        self.ladder = worker.spec.ladder
        self.worked = False

    def go(self) -> None:
        while not self.worker.stop.requested and self._one_climb():
            self.worked = True
            for climber in hopeless(self._climbers(), self.ladder, self.spec.keep):
                self.worker.beaten(self._trial(climber.number))
        if not self.worker.stop.requested and self.spec.confirm_seeds:
            self._confirm()
        if not self.worker.stop.requested:
            self._finale()
        if not self.worker.stop.requested:
            for climber in self._climbers():
                if climber.waits:
                    self.worker.beaten(self._trial(climber.number))
        if not self.worked:
            self.progress.say(f"all {self.spec.trials} trials are done; a larger --trials searches on")

    def _one_climb(self) -> bool:
        """Work on the trial whose turn it is, up to its next rung; False when there is none, or no time."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.WAITING and storage.is_under_way(trial):
                return self._climb(
                    storage.take(self.study, trial, self.worker.sampler), trial.user_attrs[GOAL]
                )
        for climber in promotable(self._climbers(), self.ladder):
            goal = self.ladder.above(climber.rung)
            if self._fits(goal, self._trial(climber.number)):
                waiting = self._trial(climber.number)
                return self._climb(storage.take(self.study, waiting, self.worker.sampler), goal)
        lowest = self.ladder.percents()[0]
        begun = sum(GOAL in trial.user_attrs for trial in trials)
        # However short the time, one trial is made: there is something to export then.
        if begun >= self.spec.trials or (begun and not self._fits(lowest)):
            return False
        known = next((t for t in trials if t.state == TrialState.WAITING and GOAL not in t.user_attrs), None)
        if known is not None:
            return self._climb(storage.take(self.study, known, self.worker.sampler), lowest)
        return self._climb(storage.take_new(self.study, self.worker.sampler), lowest)

    def _climb(self, trial: Trial | None, goal: int) -> bool:
        if trial is not None:
            self.worker.work_on(trial, goal)
        return True

    def _fits(self, goal: int, trial: FrozenTrial | None = None) -> bool:
        """Whether the way up to `goal` ends within the time of the search, as far as is known."""
        if trial is not None:
            share = self.ladder.share(self._rung(trial))
            expected = trial.user_attrs["seconds"] * (self.ladder.share(goal) / share - 1)
        else:
            rate = statistics.median(self.worker.rates) if self.worker.rates else 0.0
            expected = rate * self.ladder.share(goal)
        return bool(self._elapsed() + expected <= self.spec.timeout * self.spec.search_share)

    def _rung(self, trial: FrozenTrial) -> int:
        return max(percent for percent in trial.intermediate_values if percent in self.ladder.percents())

    def _climbers(self) -> list[Climber]:
        return storage.climbers(self.study, self.ladder)

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _out_of_time(self) -> bool:
        begun = sum(GOAL in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))
        return begun < self.spec.trials or bool(promotable(self._climbers(), self.ladder))

    def _confirm(self) -> None:
        """Train the leaders again from new seeds, each for an equal share of the time kept for it.

        Where no clock decides, for as long as it takes from the start to the last rung below the end.
        """
        done = confirm.repeats(self.study)
        chosen = [
            t
            for t in confirm.finalists(self.study, self.ladder, self.spec.finalists)
            if TOP not in t.intermediate_values
        ]
        runs = [(trial, seed) for seed in range(1, self.spec.confirm_seeds + 1) for trial in chosen]
        seconds = self.spec.timeout * (1 - self.spec.finale - self.spec.search_share) / max(len(runs), 1)
        clocked = self._out_of_time()
        for trial, seed in runs:
            earlier = {entry.seed: entry.steps for entry in done if entry.trial == trial.number}
            if seed in earlier:
                continue
            if earlier:
                steps = next(iter(earlier.values()))
            elif clocked:
                steps = max(1, int(seconds / trial.user_attrs["seconds_per_step"]))
            else:
                steps = self._config(trial.number).steps_at(self.ladder.shares()[-2])
            label = f"trial {trial.number} again, seed {seed}"
            report = confirm.Retraining(label, steps, self.progress, self.worker.stop)
            folder = self.worker.options.out / self.spec.name / f"confirm-{trial.number:04d}-{seed}"
            try:
                done.append(
                    confirm.repeat(
                        trial, seed, steps, self.worker.split, self.worker.options.device, folder, report
                    )
                )
            except Stopped:
                return
            shutil.rmtree(folder, ignore_errors=True)
            confirm.keep(self.study, done)
        for line in confirm.sentences(self.study):
            self.progress.say(line)

    def _finale(self) -> None:
        """Train the best trial that waits to its end.

        Where the search ended for lack of time, its length is made to fit the time that is left, if the
        steps so far are the same for any length: once at the start, and once more where the cooldown
        begins. Where it ended for its number of trials, no clock decides.
        """
        in_front = leader((c for c in self._climbers() if c.waits or TOP in c.scores), self.ladder)
        if in_front is None or not (in_front.waits or self._time_for_another()):
            return
        clocked = self._out_of_time()
        waiting = self._waiting_best_first()
        in_time = [number for number in waiting if not clocked or self._seconds_over(number) <= 0]
        number = in_time[0] if in_time else min(waiting, key=self._seconds_over, default=None)
        if number is None:
            return
        self.worked = True
        config = self._config(number)
        if not (clocked and config.stretchable):
            self._last_stretch(number)
            return
        whole = config.stretched(max(self._affordable_steps(number), self._fewest_steps(number)))
        if whole.constant_steps > self._trial(number).user_attrs["steps_done"]:
            self._last_stretch(number, whole, pause_at=whole.constant_steps)
        if self._trial(number).state == TrialState.WAITING and not self.worker.stop.requested:
            cooldown_from = self._trial(number).user_attrs["steps_done"]
            steps = max(self._affordable_steps(number), self._fewest_steps(number))
            self._last_stretch(number, config.stretched(steps, cooldown_from))

    def _waiting_best_first(self) -> list[int]:
        """Trials that wait: by their repeats where there are any, then by rung, then by score."""
        waiting = [climber for climber in self._climbers() if climber.waits]
        by_rung = [c.number for rung in self.ladder.percents()[::-1] for c in ranked(waiting, rung)]
        confirmed = [n for n in confirm.best_first(confirm.repeats(self.study)) if n in by_rung]
        return list(dict.fromkeys(confirmed + by_rung))

    def _seconds_over(self, number: int) -> float:
        """How much later than this run's time (and a little more) the shortest way to the end would be over."""
        left = self.spec.timeout - self._elapsed()
        needed = self._fewest_steps(number) - self._trial(number).user_attrs["steps_done"]
        return float(needed * self._trial(number).user_attrs["seconds_per_step"] - MOST_OVER * left)

    def _fewest_steps(self, number: int) -> int:
        """The shortest whole training with the steps that a trial has behind it."""
        config = self._config(number)
        if not config.stretchable:
            return config.total_steps
        done: int = self._trial(number).user_attrs["steps_done"]
        return math.ceil(done / (1 - SHORTEST_COOLDOWN))

    def _config(self, number: int) -> TrialConfig:
        return TrialConfig.model_validate_json(self._trial(number).user_attrs["config"])

    def _time_for_another(self) -> bool:
        """Whether there is time to train a trial to its end though one that is no worse has been."""
        left = self.spec.timeout - self._elapsed()
        return self._out_of_time() and left > self.spec.timeout * self.spec.finale / 2

    def _last_stretch(
        self, number: int, config: TrialConfig | None = None, pause_at: int | None = None
    ) -> None:
        trial = storage.take(self.study, self._trial(number), self.worker.sampler)
        if trial is None:
            return
        if config is not None:
            storage.record(trial, {LENGTH: [config.total_steps, config.constant_steps]})
        self.worker.work_on(trial, TOP, pause_at)

    def _affordable_steps(self, number: int) -> int:
        """The length of the whole training that ends with the time of this run."""
        facts, config = self._trial(number).user_attrs, self._config(number)
        done, per_step = facts["steps_done"], facts["seconds_per_step"]
        scores = len(json.loads(facts["rungs"]))
        per_score = max(facts["seconds"] - per_step * done, 0.0) / max(scores, 1)
        to_come = sum(step > done for step in config.rungs()) + config.val_megapixels / config.rung_megapixels
        left = (self.spec.timeout - self._elapsed()) * FINALE_SAFETY - per_score * to_come
        return int(done + max(left / per_step, 1))
