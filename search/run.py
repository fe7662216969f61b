"""Run a study: sample, train, record; what a failed trial means; then the finale."""

import hashlib
import json
import platform
import statistics
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch

from data import DataConfig, Split
from models.cost import count_macs, count_parameters
from search import pictures, space, storage, winners
from search.errors import UserError
from search.progress import Progress, clock
from search.storage import FINALE, LABEL, REPLACED, TrialState
from search.study import StudySpec, close
from search.trial import checkpoint
from search.trial.config import TrialConfig
from search.trial.evaluate import Score, mean_score, score_image, spread
from search.trial.initial import InitialConfig
from search.trial.rescue import Diverged, is_lack_of_memory, limit_memory
from search.trial.train import Stopped, TrialResult, memory_mb, train
from search.watch import StopSignals, Watch

SAME_BUG_LIMIT = 3
# The finale is planned for this share of the time left: its speed is known only from short trials.
FINALE_SAFETY = 0.93
COST_SIDE = 256  # multiply-adds are stated for an image of this side, as in the field's tables


@dataclass(frozen=True)
class Options:
    """How one `run` is carried out; none of it changes what a trial computes."""

    storage: str
    out: Path
    device: torch.device
    memory: int | None = None
    """Bytes that this process may hold: batches that need more go in parts."""
    quiet: bool = False
    continue_with_changes: bool = False


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
        search = _Search(spec, options, study, split, stop, progress, started)
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


def starting_point(initial: InitialConfig, url: str, out: Path) -> InitialConfig:
    """The same, with a study resolved to the file of its best weights. `UserError` if it has none."""
    if initial.study is None:
        return initial
    weights = winners.load(storage.load_study(initial.study, url), out).weights
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return InitialConfig(file=weights, match=initial.match, sha256=digest)


def config_of(spec: StudySpec, trial: optuna.Trial, channels: int) -> TrialConfig:
    """Let the trial fill the open leaves. What the recipe does not fix follows from the study and the data."""
    tree = space.fill(space.replaced(spec.recipe, trial.user_attrs.get(REPLACED, {})), trial)
    tree["model"] = {"channels": channels, **tree["model"]}
    tree.setdefault("seed", (spec.seed * 1_000_003 + trial.number) % 2**32)
    if FINALE in trial.user_attrs:
        tree["steps"] = {"teramacs": trial.user_attrs[FINALE]}
    return close(tree)


class _Search:
    """One sitting of a study."""

    def __init__(
        self,
        spec: StudySpec,
        options: Options,
        study: optuna.Study,
        split: Split,
        stop: StopSignals,
        progress: Progress,
        started: float,
    ) -> None:
        self.spec, self.options, self.study, self.split = spec, options, study, split
        self.stop, self.progress, self.started = stop, progress, started
        self.study.pruner = storage.pruner()
        self.durations: list[float] = []
        self.bugs: list[str] = []
        self.spent_teramacs = 0.0
        for trial in study.get_trials(deepcopy=False):
            self._show(trial.state, trial.value, trial.number)

    def go(self) -> None:
        while self._search_goes_on():
            self.study.sampler = storage.sampler(self.spec, storage.next_number(self.study))
            self._work_on(self.study.ask())
        if not self.stop.requested and self.spec.finale > 0:
            self._finale()
        if not self.durations:
            self.progress.say(f"all {self.spec.trials} trials are done; a larger --trials searches on")

    def _work_on(self, trial: optuna.Trial) -> None:
        """Train, record. The trial ends as complete, pruned or failed, or goes back into the queue."""
        storage.claim(trial)
        started = time.monotonic()
        try:
            config = config_of(self.spec, trial, self.split.channels)
            if config.initial is not None:
                initial = starting_point(config.initial, self.options.storage, self.options.out)
                config = config.model_copy(update={"initial": initial})
            self._train(trial, config)
        except space.SpaceError as error:
            self.study.tell(trial, state=TrialState.FAIL)
            raise UserError(f"study {self.spec.name!r}, trial {trial.number}: {error}") from None
        except (KeyboardInterrupt, OSError):
            # Ctrl-C twice, or a full disk: nothing is wrong with the trial, it can go on later.
            storage.hand_back(self.study, trial._trial_id)
            raise
        self.durations.append(time.monotonic() - started)

    def _train(self, trial: optuna.Trial, config: TrialConfig) -> None:
        folder = self._folder(trial.number)
        label = trial.user_attrs.get(LABEL)
        name = f"trial {trial.number}" + (f" ({label})" if label else "")
        watch = Watch(trial, config, self.progress, self.stop, self.spec.trial_timeout)
        storage.record(trial, self._circumstances(config))
        self.progress.start(name, 0, config.total_steps)
        state, why = TrialState.COMPLETE, "finished"
        value: float | None = None
        bugs, self.bugs = self.bugs, []
        try:
            result = train(config, self.split, self.options.device, folder, watch)
            value = result.score.psnr_db
            storage.record(trial, _facts(result))
        except Stopped as stopped:
            storage.record(trial, {"seconds": watch.seconds()})
            storage.hand_back(self.study, trial._trial_id)
            self.progress.say(f"{name}: stopped {stopped}, kept to go on")
            return
        except optuna.TrialPruned as pruned:
            state, why = TrialState.PRUNED, str(pruned)
        except Diverged as diverged:
            state, why = TrialState.PRUNED, str(diverged)
        except OSError:
            raise
        except Exception as error:
            if is_lack_of_memory(error):
                state, why = TrialState.PRUNED, f"out of memory: {_first_line(error)}"
            else:
                state, why = TrialState.FAIL, f"{type(error).__name__}: {error}"
                storage.record(trial, {"traceback": traceback.format_exc()})
                self.bugs = [*bugs, why]
        self._record_end(trial, config, folder, watch, why)
        self.study.tell(trial, value, state=state)
        self._forget_weights(trial)
        self._show(state, value, trial.number)
        score = f"{value:.2f} dB" if value is not None else why
        took = clock(watch.seconds()) + (f", {config.total_steps} steps" if config.total_steps else "")
        self.progress.say(f"{name}: {score}  ({took}){_short(trial.params)}")
        if self.bugs[-SAME_BUG_LIMIT:] == [why] * SAME_BUG_LIMIT:
            raise UserError(
                f"study {self.spec.name!r}: {SAME_BUG_LIMIT} trials in a row failed the same way: {why}\n"
                f"The traceback is with trial {trial.number} in the dashboard."
            )

    def _record_end(
        self, trial: optuna.Trial, config: TrialConfig, folder: Path, watch: Watch, why: str
    ) -> None:
        if FINALE not in trial.user_attrs:
            self.spent_teramacs += config.teramacs_per_step * watch.step
        facts = {
            "ended": why,
            "rungs": json.dumps([asdict(score) for score in watch.rungs]),
            "steps_done": watch.step,
            "seconds": watch.seconds(),
            "seconds_per_step": watch.seconds_per_step(),
            "peak_memory_mb": memory_mb(self.options.device),
        }
        storage.record(trial, facts)
        checkpoint.drop_state(folder)
        weights = folder / checkpoint.BEST
        if weights.exists():
            strip = folder / "sample.png"
            pictures.save_strip(strip, config.model, weights, self.split.val, self.options.device)
            storage.add_picture(trial, strip, self.options.out / "artifacts")

    def _folder(self, number: int) -> Path:
        return self.options.out / self.spec.name / f"trial-{number:04d}"

    def _forget_weights(self, last: optuna.Trial) -> None:
        """Delete weights that no export will ask for: of `last` if it came to nothing, and of the beaten."""
        ranked = [trial.number for trial in storage.best_first(self.study)]
        beaten = ranked[self.spec.keep :] + [last.number] * (last.number not in ranked)
        for number in beaten:
            (self._folder(number) / checkpoint.BEST).unlink(missing_ok=True)

    def _circumstances(self, config: TrialConfig) -> dict[str, Any]:
        """What a trial depended on, known before it starts."""
        model = config.model.build()
        return {
            "config": config.model_dump_json(),
            "parameters": count_parameters(model),
            "gmacs_at_256": count_macs(model, config.model.channels, COST_SIDE, COST_SIDE) / 1e9,
            "steps": config.total_steps,
            "seed": config.seed,
            "data": self.split.fingerprint,
            "device": device_name(self.options.device),
            "versions": json.dumps(
                {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "optuna": optuna.__version__,
                }
            ),
        }

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _search_goes_on(self) -> bool:
        if self.stop.requested:
            return False
        trials = self.study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING and trial.datetime_start for trial in trials):
            return True
        if self._trials_used_up():
            return False
        expected = statistics.median(self.durations) if self.durations else 0.0
        return self._elapsed() + expected <= self.spec.timeout * (1 - self.spec.finale)

    def _trials_used_up(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        searched = [t for t in trials if t.state.is_finished() and FINALE not in t.user_attrs]
        return len(searched) >= self.spec.trials

    def _finale(self) -> None:
        """Train the best recipe from scratch: for the time that is left, or, where the search ended for
        its number of trials, with the same ratio of compute (which does not depend on the clock)."""
        best = storage.best_trial(self.study)
        if best is None or self.spent_teramacs == 0:
            return
        config = TrialConfig.model_validate_json(best.user_attrs["config"])
        spent = config.teramacs_per_step * best.user_attrs["steps_done"]
        training = best.user_attrs["seconds_per_step"] * best.user_attrs["steps_done"]
        # Validation takes as long, however long the training.
        validation = max(best.user_attrs["seconds"] - training, 0.0)
        left = (self.spec.timeout - self._elapsed()) * FINALE_SAFETY - validation
        teramacs = spent / training * left
        if self._trials_used_up():
            teramacs = min(teramacs, self.spent_teramacs * self.spec.finale / (1 - self.spec.finale))
        if teramacs <= spent:
            self.progress.say("no finale: the time left would not train the best recipe any longer")
            return
        attributes = {LABEL: "finale", FINALE: teramacs, REPLACED: best.user_attrs.get(REPLACED, {})}
        self._work_on(storage.start_again(self.study, best, attributes))

    def _show(self, state: TrialState, value: float | None, number: int) -> None:
        kinds: Mapping[TrialState, Literal["done", "pruned", "failed"]] = {
            TrialState.COMPLETE: "done",
            TrialState.PRUNED: "pruned",
            TrialState.FAIL: "failed",
        }
        if state in kinds:
            self.progress.count(kinds[state])
        if value is not None:
            self.progress.offer(value, f"trial {number}")


def _facts(result: TrialResult) -> dict[str, Any]:
    """What a complete trial achieved, as trial attributes."""
    return {
        "psnr_db": result.score.psnr_db,
        "ssim": result.score.ssim,
        "mae": result.score.mae,
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _short(params: Mapping[str, Any]) -> str:
    """The settings of a trial in one line."""
    shown = (
        f"{name.split('.')[-1]}={value:.3g}" if isinstance(value, float) else f"{name.split('.')[-1]}={value}"
        for name, value in params.items()
    )
    return "  " + " ".join(shown)


def device_name(device: torch.device) -> str:
    """The device, for people: "cpu (2 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
