"""Work on one trial: train it, record all about it, and decide what its end means."""

import hashlib
import json
import platform
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from data import Split
from models.cost import count_parameters
from search import inherit, leases, limits, pictures, sampling, space, storage, winners
from search.device import device_name, is_lack_of_memory, memory_mb
from search.errors import UserError
from search.progress import Shows, clock
from search.rungs import TOP
from search.storage import FULL, GOAL, LABEL, LENGTH, REPLACED, TrialState
from search.study import StudySpec, close
from search.trial import checkpoint
from search.trial.config import TrialConfig, forward_macs
from search.trial.initial import InitialConfig
from search.trial.rescue import Diverged
from search.trial.train import Stopped, TrialResult, train
from search.watch import StopSignals, Watch

SAME_BUG_LIMIT = 3
STRIP = "sample.png"
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
    warm_start: str | None = None
    """A study of the same database to carry on from."""
    typed: str = ""
    """The command that started it, for whoever wants to repeat it."""
    index: int = 0
    workers: int = 1
    """Which of how many workers this process is: they divide what is not claimed trial by trial."""


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
    tree.setdefault("pauses", spec.ladder.shares()[:-1])
    if "steps" not in tree:
        tree["steps"] = {"teramacs": trial.study.user_attrs[FULL]}
    config = close(tree)
    if LENGTH in trial.user_attrs:
        config = config.in_tempo(*trial.user_attrs[LENGTH])
    return config


class Worker:
    """Works on the trials of one study in this process, one after another."""

    def __init__(
        self,
        spec: StudySpec,
        options: Options,
        study: storage.Study,
        split: Split,
        stop: StopSignals,
        progress: Shows,
        pulse: leases.Pulse,
    ) -> None:
        self.spec, self.options, self.study, self.split = spec, options, study, split
        self.stop, self.progress, self.pulse = stop, progress, pulse
        self.seconds_per_training: list[float] = []
        """As each piece of work so far tells."""
        self.bugs: list[str] = []
        self.inheritance = inherit.Inheritance(
            spec.inherit_weights, split.fingerprint, self._folder, progress.say
        )

    def work_on(self, trial: optuna.Trial, pause_at: int | None = None) -> None:
        """Train up to the rung that is the trial's `GOAL`, or to step `pause_at` of the last stretch, and record.

        The trial ends as complete, pruned or failed, or waits for its turn.
        """
        started = time.monotonic()
        self.pulse.hold(trial._trial_id)
        try:
            config = config_of(self.spec, trial, self.split.channels)
            if config.initial is not None:
                initial = starting_point(config.initial, self.options.storage, self.options.out)
                config = config.model_copy(update={"initial": initial})
            if (goal := trial.user_attrs[GOAL]) < TOP:
                pause_at = config.steps_at(self.spec.ladder.share(goal))
            before = trial.user_attrs.get("steps_done", 0)
            self._train(trial, config, pause_at if pause_at != config.total_steps else None)
        except space.SpaceError as error:
            self.study.tell(trial, state=TrialState.FAIL)
            raise UserError(f"study {self.spec.name!r}, trial {trial.number}: {error}") from None
        except (KeyboardInterrupt, OSError, UserError):
            # Ctrl-C twice, a full disk, a database that is away: nothing is wrong with the trial, it can go on later.
            with suppress(UserError):
                self._hand_back(trial)
            raise
        finally:
            self.pulse.let_go()
        if config.total_steps and (done := trial.user_attrs.get("steps_done", before) - before):
            self.seconds_per_training.append((time.monotonic() - started) * config.total_steps / done)

    def _train(self, trial: optuna.Trial, config: TrialConfig, pause_at: int | None) -> None:
        folder = self._folder(trial.number)
        label = trial.user_attrs.get(LABEL)
        name = f"trial {trial.number}" + (f" ({label})" if label else "")
        # The last stretch is what the search was for: it has all the time that is left.
        last_stretch = trial.user_attrs[GOAL] == TOP and self.spec.ladder.rungs > 0
        limit = None if last_stretch else self.spec.trial_timeout
        watch = Watch(name, trial, config, self.progress, self.stop, self.pulse, limit, pause_at)
        # What is recorded is the recipe alone: whoever trains it again does so from random weights.
        begun = self.inheritance.begun(trial, config)
        storage.record(trial, self._circumstances(config))
        self.progress.start(name, 0, config.total_steps)
        state, why = TrialState.COMPLETE, "finished"
        value: float | None = None
        facts: dict[str, Any] = {}
        bugs, self.bugs = self.bugs, []
        try:
            self._weigh(trial, config)
            result = train(begun, self.split, self.options.device, folder, watch)
            value, facts = result.score.psnr_db, _facts(result)
        except Stopped as stopped:
            if self.pulse.lost:
                self.progress.say(f"{name}: another worker goes on with it")
                return
            storage.record(trial, self._progress_of(watch))
            if watch.paused:
                self._save_picture(config, folder)
                self._say_paused(name, trial, watch)
            else:
                self.progress.say(f"{name}: stopped {stopped}, kept to go on")
            self._hand_back(trial)
            return
        except optuna.TrialPruned as pruned:
            state, why = TrialState.PRUNED, str(pruned)
        except Diverged as diverged:
            state, why = TrialState.PRUNED, str(diverged)
        except (OSError, UserError):
            raise
        except Exception as error:
            if is_lack_of_memory(error):
                state, why = TrialState.PRUNED, f"out of memory: {_first_line(error)}"
            else:
                state, why = TrialState.FAIL, f"{type(error).__name__}: {error}"
                facts = {"traceback": traceback.format_exc()}
                self.bugs = [*bugs, why]
        self.pulse.look()
        if self.pulse.lost:  # in the time since the last sign of life
            self.progress.say(f"{name}: another worker goes on with it")
            return
        storage.record(trial, {**facts, **self._progress_of(watch)})
        self._save_picture(config, folder)
        self._end(trial, state, value, why)
        score = f"{value:.2f} dB" if value is not None else why
        took = clock(watch.seconds()) + (f", {watch.step} steps" if watch.step else "")
        self.progress.say(f"{name}: {score}  ({took}){_short(trial.params)}")
        if self.bugs[-SAME_BUG_LIMIT:] == [why] * SAME_BUG_LIMIT:
            raise UserError(
                f"study {self.spec.name!r}: {SAME_BUG_LIMIT} trials in a row failed the same way: {why}\n"
                f"The traceback is with trial {trial.number} in the dashboard."
            )

    def _weigh(self, trial: optuna.Trial, config: TrialConfig) -> None:
        """Record, once, what restoring with this model takes. `TrialPruned` if it is over a limit of the study.

        One that has too many parameters or multiply-adds is not tried.
        """
        if limits.SPEED in trial.user_attrs:
            return
        allowed = self.spec.limits
        if allowed.refusal(trial.user_attrs) is None:
            found = limits.probe(config.model.build(), config.model.channels, self.options.device)
            storage.record(trial, found)
        storage.constrain(trial, allowed.excess(trial.user_attrs))
        if why := allowed.refusal(trial.user_attrs):
            raise optuna.TrialPruned(why)

    def _say_paused(self, name: str, trial: optuna.Trial, watch: Watch) -> None:
        if trial.user_attrs[GOAL] == TOP:
            return
        first = len(watch.reported) == 1
        self.progress.say(
            f"{name}: {watch.rungs[-1].psnr_db:.2f} dB at {trial.user_attrs[GOAL]} %  "
            f"({clock(watch.seconds())}){_short(trial.params) if first else ''}"
        )

    def prune(self, waiting: storage.FrozenTrial) -> None:
        """End a trial that waits at a rung: others are better there."""
        trial = leases.take(self.study, waiting, self.sampler)
        if trial is not None:
            rung = max(waiting.intermediate_values)
            why = f"beaten at {rung} %: {waiting.intermediate_values[rung]:.2f} dB"
            self._end(trial, TrialState.PRUNED, None, why)

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """How trial `number` of this study draws its settings."""
        return sampling.sampler(self.spec, number)

    def _hand_back(self, trial: optuna.Trial) -> None:
        self.pulse.let_go()
        leases.hand_back(self.study, trial._trial_id)

    def _end(self, trial: optuna.Trial, state: TrialState, value: float | None, why: str) -> None:
        folder = self._folder(trial.number)
        storage.record(trial, {"ended": why})
        if (strip := folder / STRIP).exists():
            storage.add_picture(trial, strip, self.options.out / "artifacts")
        self.pulse.let_go()
        self.study.tell(trial, value, state=state)
        checkpoint.drop_state(folder)
        inherit.drop(folder)
        self._forget_weights(trial)
        if kind := storage.kind_of_end(state):
            self.progress.ended(kind, value, trial.number)

    def _progress_of(self, watch: Watch) -> dict[str, Any]:
        """How far a trial has come, as trial attributes."""
        return {
            "rungs": json.dumps([asdict(score) for score in watch.rungs]),
            "steps_done": watch.step,
            "seconds": watch.seconds(),
            "seconds_per_step": watch.seconds_per_step(),
            "peak_memory_mb": memory_mb(self.options.device),
        }

    def _save_picture(self, config: TrialConfig, folder: Path) -> None:
        weights = folder / checkpoint.BEST
        if weights.exists():
            pictures.save_strip(folder / STRIP, config.model, weights, self.split.val, self.options.device)

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
        return {
            "config": config.model_dump_json(),
            "parameters": count_parameters(config.model.build()),
            "gmacs_at_256": forward_macs(config.model, COST_SIDE) / 1e9,
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
