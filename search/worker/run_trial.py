"""Training one trial after another: draws its config, trains it, records the outcome."""

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from data.sources import Split
from search.database import (
    FrozenTrial,
    Heartbeat,
    Study,
    TrialState,
    artifacts_folder,
    attach_picture,
    claim_trial,
    facts_of,
    kind_of_end,
    ranked_trials,
    record_facts,
    release_trial,
    set_constraints,
    study_folder,
    trial_folder,
)
from search.errors import UserError, first_line
from search.inference import is_lack_of_memory, measure_inference_cost, memory_mb
from search.samplers import make_sampler
from search.scheduler import TOP
from search.study import SpaceError, StudySpec
from search.terminal import Shows
from search.text import clock
from search.trial import BEST_WEIGHTS, Diverged, Stopped, TrialConfig, drop_state, train
from search.worker.callback import StopSignals, TrialCallback
from search.worker.run_options import RunOptions
from search.worker.sample_strip import save_strip
from search.worker.trial_setup import circumstances, draw_config, resolve_starting_point
from search.worker.weight_inheritance import WeightInheritance, drop_inherited_weights

SAME_ERROR_LIMIT = 3
STRIP = "sample.png"


@dataclass(frozen=True)
class TrialOutcome:
    """Outcome of training a trial up to its goal."""

    state: TrialState
    """Complete, pruned or failed; waiting if it was stopped or paused and continues later."""
    why: str
    psnr_db: float | None = None
    """The final score of a complete trial."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts to record: the scores of a complete trial, the traceback of a failed one."""

    @property
    def ended(self) -> bool:
        return self.state.is_finished()


class Worker:
    """Trains trials of one study in this process, one after another."""

    def __init__(
        self,
        spec: StudySpec,
        options: RunOptions,
        study: Study,
        split: Split,
        stop: StopSignals,
        progress: Shows,
        heartbeat: Heartbeat,
    ) -> None:
        self.spec, self.options, self.study, self.split = spec, options, study, split
        self.stop, self.progress, self.heartbeat = stop, progress, heartbeat
        self.folder = study_folder(options.out, study)
        self.seconds_per_training: list[float] = []
        """Seconds of a whole training, estimated from each trial so far."""
        self.latest_errors: list[str] = []
        """Errors of the latest trials, since the last one that did not fail."""
        self.inheritance = WeightInheritance(
            spec.inherit_weights, split.fingerprint, self._folder, progress.say
        )

    def work_on(self, trial: optuna.Trial, pause_at: int | None = None) -> None:
        """Train a claimed trial up to the rung that is its `goal`, or to step `pause_at` of the last stretch.

        Afterwards the trial is complete, pruned or failed, or waits at a rung.
        """
        started = time.monotonic()
        self.heartbeat.attach(trial)
        try:
            config = self._config(trial)
            facts = facts_of(trial)
            before, goal = facts.steps_done, facts.goal
            assert goal is not None, "a claimed trial has a goal"
            if goal < TOP:
                pause_at = config.steps_at(self.spec.ladder.share(goal))
            self._train(trial, config, goal, pause_at if pause_at != config.total_steps else None)
        except SpaceError as error:
            self.study.tell(trial, state=TrialState.FAIL)
            raise UserError(f"study {self.spec.name!r}, trial {trial.number}: {error}") from None
        except (KeyboardInterrupt, OSError, UserError):
            # Ctrl-C twice, a full disk, no connection to the database: not the trial's fault, it can continue later.
            with suppress(UserError):
                self._release(trial)
            raise
        finally:
            self.heartbeat.detach()
        if config.total_steps and (done := facts_of(trial).steps_done - before):
            self.seconds_per_training.append((time.monotonic() - started) * config.total_steps / done)

    def prune(self, waiting: FrozenTrial) -> None:
        """End a trial that is paused at a rung where others are better."""
        trial = claim_trial(self.study, waiting, self.sampler)
        if trial is not None:
            rung = max(waiting.intermediate_values)
            why = f"beaten at {rung} %: {waiting.intermediate_values[rung]:.2f} dB"
            self._end(trial, TrialOutcome(TrialState.PRUNED, why))

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of trial `number`."""
        return make_sampler(self.spec, number)

    def _config(self, trial: optuna.Trial) -> TrialConfig:
        config = draw_config(self.spec, trial, self.split.channels)
        if config.initial is None:
            return config
        initial = resolve_starting_point(config.initial, self.options.storage, self.options.out)
        return config.model_copy(update={"initial": initial})

    def _train(self, trial: optuna.Trial, config: TrialConfig, goal: int, pause_at: int | None) -> None:
        """Train a trial up to `goal` and record the outcome."""
        # The last stretch has no time limit of its own: it uses the time that remains for the search.
        last_stretch = goal == TOP and self.spec.ladder.rungs > 0
        limit = None if last_stretch else self.spec.trial_timeout
        name = _name(trial)
        callback = TrialCallback(
            name, trial, config, self.progress, self.stop, self.heartbeat, limit, pause_at
        )
        # The recorded config is the one without inherited weights: a repeat starts from random weights.
        start_config = self.inheritance.starting_config(trial, config)
        record_facts(trial, **circumstances(config, self.split.fingerprint, self.options.device))
        self.progress.start(name, 0, config.total_steps)
        outcome = self._attempt(trial, start_config, callback)
        self.latest_errors = [*self.latest_errors, outcome.why] if outcome.state == TrialState.FAIL else []
        self._record(trial, outcome, callback, goal)

    def _attempt(self, trial: optuna.Trial, config: TrialConfig, callback: TrialCallback) -> TrialOutcome:
        """Measure the cost of the model and train it. Raises `OSError` and `UserError`: not the trial's fault."""
        try:
            self._measure_model_cost(trial, config)
            result = train(config, self.split, self.options.device, self._folder(trial.number), callback)
        except Stopped as stopped:
            return TrialOutcome(TrialState.WAITING, str(stopped))
        except (optuna.TrialPruned, Diverged) as pruned:
            return TrialOutcome(TrialState.PRUNED, str(pruned))
        except (OSError, UserError):
            raise
        except Exception as error:
            if is_lack_of_memory(error):
                return TrialOutcome(TrialState.PRUNED, f"out of memory: {first_line(error)}")
            why = f"{type(error).__name__}: {error}"
            return TrialOutcome(TrialState.FAIL, why, facts={"traceback": traceback.format_exc()})
        score = result.score
        achieved = {"psnr_db": score.psnr_db, "ssim": score.ssim, "mae": score.mae}
        return TrialOutcome(TrialState.COMPLETE, "finished", score.psnr_db, achieved)

    def _measure_model_cost(self, trial: optuna.Trial, config: TrialConfig) -> None:
        """Measure and record, once, time and memory of restoring. `TrialPruned` if it exceeds a limit of the study.

        A model with too many parameters or multiply-adds is not measured.
        """
        if facts_of(trial).ms_per_megapixel is not None:
            return
        allowed = self.spec.limits
        if allowed.refusal(facts_of(trial)) is None:
            found = measure_inference_cost(config.model.build(), config.model.channels, self.options.device)
            record_facts(trial, **found)
        measured = facts_of(trial)
        set_constraints(trial, allowed.excess(measured))
        if why := allowed.refusal(measured):
            raise optuna.TrialPruned(why)

    def _record(self, trial: optuna.Trial, outcome: TrialOutcome, callback: TrialCallback, goal: int) -> None:
        """Record the progress of the trial, then end it or release it; nothing if another worker owns it by now."""
        if outcome.ended:
            self.heartbeat.beat_once()  # the lease may have been lost since the last heartbeat
        if self.heartbeat.lost:
            self.progress.say(f"{callback.label}: another worker goes on with it")
            return
        record_facts(trial, **outcome.facts, **self._progress_of(callback))
        if outcome.ended or callback.paused:
            self._save_picture(trial.number, callback.config)
        if not outcome.ended:
            self._say_stopped(trial, outcome, callback, goal)
            self._release(trial)
            return
        self._end(trial, outcome)
        self._say_ended(trial, outcome, callback)
        self._refuse_same_error(trial, outcome)

    def _say_stopped(
        self, trial: optuna.Trial, outcome: TrialOutcome, callback: TrialCallback, goal: int
    ) -> None:
        """Print why a trial waits; nothing for a pause of the last stretch, where its length is planned again."""
        if not callback.paused:
            self.progress.say(f"{callback.label}: stopped {outcome.why}, kept to go on")
        elif goal < TOP:
            settings = _settings_in_words(trial.params) if len(callback.reported) == 1 else ""
            score, took = callback.rungs[-1].psnr_db, clock(callback.seconds())
            self.progress.say(f"{callback.label}: {score:.2f} dB at {goal} %  ({took}){settings}")

    def _say_ended(self, trial: optuna.Trial, outcome: TrialOutcome, callback: TrialCallback) -> None:
        score = f"{outcome.psnr_db:.2f} dB" if outcome.psnr_db is not None else outcome.why
        took = clock(callback.seconds()) + (f", {callback.step} steps" if callback.step else "")
        self.progress.say(f"{callback.label}: {score}  ({took}){_settings_in_words(trial.params)}")

    def _refuse_same_error(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        """Raises `UserError` once several trials in a row have failed with the same error."""
        if self.latest_errors[-SAME_ERROR_LIMIT:] == [outcome.why] * SAME_ERROR_LIMIT:
            raise UserError(
                f"study {self.spec.name!r}: {SAME_ERROR_LIMIT} trials in a row failed the same way: {outcome.why}\n"
                f"The traceback is with trial {trial.number} in the dashboard."
            )

    def _release(self, trial: optuna.Trial) -> None:
        self.heartbeat.detach()
        release_trial(self.study, trial)

    def _end(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        folder = self._folder(trial.number)
        record_facts(trial, ended=outcome.why)
        if (strip := folder / STRIP).exists():
            attach_picture(trial, strip, artifacts_folder(self.options.out))
        self.heartbeat.detach()
        self.study.tell(trial, outcome.psnr_db, state=outcome.state)
        drop_state(folder)
        drop_inherited_weights(folder)
        self._delete_unneeded_weights(trial)
        if kind := kind_of_end(outcome.state):
            self.progress.ended(kind, outcome.psnr_db, trial.number)

    def _progress_of(self, callback: TrialCallback) -> dict[str, Any]:
        """Progress of a trial, as facts."""
        return {
            "rungs": callback.rungs,
            "steps_done": callback.step,
            "seconds": callback.seconds(),
            "seconds_per_step": callback.seconds_per_step(),
            "peak_memory_mb": memory_mb(self.options.device),
        }

    def _save_picture(self, number: int, config: TrialConfig) -> None:
        folder = self._folder(number)
        weights = folder / BEST_WEIGHTS
        if weights.exists():
            save_strip(folder / STRIP, config.model, weights, self.split.val, self.options.device)

    def _folder(self, number: int) -> Path:
        return trial_folder(self.folder, number)

    def _delete_unneeded_weights(self, last: optuna.Trial) -> None:
        """Delete weights that no export can need: of trials not among the best, and of `last` if it has no score."""
        ranked = [trial.number for trial in ranked_trials(self.study)]
        beaten = ranked[self.spec.keep :] + [last.number] * (last.number not in ranked)
        for number in beaten:
            (self._folder(number) / BEST_WEIGHTS).unlink(missing_ok=True)


def _name(trial: optuna.Trial) -> str:
    """Name of a trial in messages: "trial 3 (by hand)"."""
    label = facts_of(trial).label
    return f"trial {trial.number}" + (f" ({label})" if label else "")


def _settings_in_words(params: Mapping[str, Any]) -> str:
    """The settings of a trial in one line."""
    shown = (
        f"{name.split('.')[-1]}={value:.3g}" if isinstance(value, float) else f"{name.split('.')[-1]}={value}"
        for name, value in params.items()
    )
    return "  " + " ".join(shown)
