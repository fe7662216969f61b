"""A worker: trains one trial after another, records all about it, and decides what its end means."""

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
    hand_back,
    kind_of_end,
    ranked_trials,
    record_facts,
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

SAME_BUG_LIMIT = 3
STRIP = "sample.png"


@dataclass(frozen=True)
class TrialOutcome:
    """How one attempt at a trial went."""

    state: TrialState
    """Complete, pruned or failed; waiting if it was stopped on its way and goes on later."""
    why: str
    psnr_db: float | None = None
    """The final score of a complete trial."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it left to record: the scores of a complete trial, the traceback of a failed one."""

    @property
    def ended(self) -> bool:
        return self.state.is_finished()


class Worker:
    """Works on the trials of one study in this process, one after another."""

    def __init__(
        self,
        spec: StudySpec,
        options: RunOptions,
        study: Study,
        split: Split,
        stop: StopSignals,
        progress: Shows,
        pulse: Heartbeat,
    ) -> None:
        self.spec, self.options, self.study, self.split = spec, options, study, split
        self.stop, self.progress, self.pulse = stop, progress, pulse
        self.folder = study_folder(options.out, study)
        self.seconds_per_training: list[float] = []
        """Seconds that a whole training would take, as each trial so far tells."""
        self.bugs: list[str] = []
        """Why the latest trials failed, as long as none ended otherwise."""
        self.inheritance = WeightInheritance(
            spec.inherit_weights, split.fingerprint, self._folder, progress.say
        )

    def work_on(self, trial: optuna.Trial, pause_at: int | None = None) -> None:
        """Train up to the rung that is the trial's `goal`, or to step `pause_at` of the last stretch, and record.

        The trial ends as complete, pruned or failed, or waits for its turn.
        """
        started = time.monotonic()
        self.pulse.hold(trial)
        try:
            config = self._config(trial)
            facts = facts_of(trial)
            before, goal = facts.steps_done, facts.goal
            assert goal is not None, "whoever took the trial has said how far it is to go"
            if goal < TOP:
                pause_at = config.steps_at(self.spec.ladder.share(goal))
            self._train(trial, config, goal, pause_at if pause_at != config.total_steps else None)
        except SpaceError as error:
            self.study.tell(trial, state=TrialState.FAIL)
            raise UserError(f"study {self.spec.name!r}, trial {trial.number}: {error}") from None
        except (KeyboardInterrupt, OSError, UserError):
            # Ctrl-C twice, a full disk, a database that is away: nothing is wrong with the trial, it can go on later.
            with suppress(UserError):
                self._hand_back(trial)
            raise
        finally:
            self.pulse.let_go()
        if config.total_steps and (done := facts_of(trial).steps_done - before):
            self.seconds_per_training.append((time.monotonic() - started) * config.total_steps / done)

    def prune(self, waiting: FrozenTrial) -> None:
        """End a trial that waits at a rung: others are better there."""
        trial = claim_trial(self.study, waiting, self.sampler)
        if trial is not None:
            rung = max(waiting.intermediate_values)
            why = f"beaten at {rung} %: {waiting.intermediate_values[rung]:.2f} dB"
            self._end(trial, TrialOutcome(TrialState.PRUNED, why))

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """How trial `number` of this study draws its settings."""
        return make_sampler(self.spec, number)

    def _config(self, trial: optuna.Trial) -> TrialConfig:
        config = draw_config(self.spec, trial, self.split.channels)
        if config.initial is None:
            return config
        initial = resolve_starting_point(config.initial, self.options.storage, self.options.out)
        return config.model_copy(update={"initial": initial})

    def _train(self, trial: optuna.Trial, config: TrialConfig, goal: int, pause_at: int | None) -> None:
        """Train a trial up to `goal`, and record what came of it."""
        # The last stretch is what the search was for: it has all the time that is left.
        last_stretch = goal == TOP and self.spec.ladder.rungs > 0
        limit = None if last_stretch else self.spec.trial_timeout
        name = _name(trial)
        watch = TrialCallback(name, trial, config, self.progress, self.stop, self.pulse, limit, pause_at)
        # What is recorded is the recipe alone: whoever trains it again does so from random weights.
        begun = self.inheritance.begun(trial, config)
        record_facts(trial, **circumstances(config, self.split.fingerprint, self.options.device))
        self.progress.start(name, 0, config.total_steps)
        outcome = self._attempt(trial, begun, watch)
        self.bugs = [*self.bugs, outcome.why] if outcome.state == TrialState.FAIL else []
        self._record(trial, outcome, watch, goal)

    def _attempt(self, trial: optuna.Trial, config: TrialConfig, watch: TrialCallback) -> TrialOutcome:
        """Weigh the model and train it. Raises `OSError` and `UserError`: these are no fault of the trial."""
        try:
            self._weigh(trial, config)
            result = train(config, self.split, self.options.device, self._folder(trial.number), watch)
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

    def _weigh(self, trial: optuna.Trial, config: TrialConfig) -> None:
        """Record, once, what restoring with this model takes. `TrialPruned` if it is over a limit of the study.

        One that has too many parameters or multiply-adds is not tried.
        """
        if facts_of(trial).ms_per_megapixel is not None:
            return
        allowed = self.spec.limits
        if allowed.refusal(facts_of(trial)) is None:
            found = measure_inference_cost(config.model.build(), config.model.channels, self.options.device)
            record_facts(trial, **found)
        weighed = facts_of(trial)
        set_constraints(trial, allowed.excess(weighed))
        if why := allowed.refusal(weighed):
            raise optuna.TrialPruned(why)

    def _record(self, trial: optuna.Trial, outcome: TrialOutcome, watch: TrialCallback, goal: int) -> None:
        """Write down how far the trial has come, and end it or put it back; unless another worker has it by now."""
        if outcome.ended:
            self.pulse.look()  # it may have been lost in the time since the last sign of life
        if self.pulse.lost:
            self.progress.say(f"{watch.label}: another worker goes on with it")
            return
        record_facts(trial, **outcome.facts, **self._progress_of(watch))
        if outcome.ended or watch.paused:
            self._save_picture(trial.number, watch.config)
        if not outcome.ended:
            self._say_stopped(trial, outcome, watch, goal)
            self._hand_back(trial)
            return
        self._end(trial, outcome)
        self._say_ended(trial, outcome, watch)
        self._refuse_same_bug(trial, outcome)

    def _say_stopped(
        self, trial: optuna.Trial, outcome: TrialOutcome, watch: TrialCallback, goal: int
    ) -> None:
        """Say why a trial waits; a pause of the last stretch, where it is planned anew, is not worth a line."""
        if not watch.paused:
            self.progress.say(f"{watch.label}: stopped {outcome.why}, kept to go on")
        elif goal < TOP:
            settings = _short(trial.params) if len(watch.reported) == 1 else ""
            score, took = watch.rungs[-1].psnr_db, clock(watch.seconds())
            self.progress.say(f"{watch.label}: {score:.2f} dB at {goal} %  ({took}){settings}")

    def _say_ended(self, trial: optuna.Trial, outcome: TrialOutcome, watch: TrialCallback) -> None:
        score = f"{outcome.psnr_db:.2f} dB" if outcome.psnr_db is not None else outcome.why
        took = clock(watch.seconds()) + (f", {watch.step} steps" if watch.step else "")
        self.progress.say(f"{watch.label}: {score}  ({took}){_short(trial.params)}")

    def _refuse_same_bug(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        """`UserError` once several trials in a row have failed the same way."""
        if self.bugs[-SAME_BUG_LIMIT:] == [outcome.why] * SAME_BUG_LIMIT:
            raise UserError(
                f"study {self.spec.name!r}: {SAME_BUG_LIMIT} trials in a row failed the same way: {outcome.why}\n"
                f"The traceback is with trial {trial.number} in the dashboard."
            )

    def _hand_back(self, trial: optuna.Trial) -> None:
        self.pulse.let_go()
        hand_back(self.study, trial)

    def _end(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        folder = self._folder(trial.number)
        record_facts(trial, ended=outcome.why)
        if (strip := folder / STRIP).exists():
            attach_picture(trial, strip, artifacts_folder(self.options.out))
        self.pulse.let_go()
        self.study.tell(trial, outcome.psnr_db, state=outcome.state)
        drop_state(folder)
        drop_inherited_weights(folder)
        self._forget_weights(trial)
        if kind := kind_of_end(outcome.state):
            self.progress.ended(kind, outcome.psnr_db, trial.number)

    def _progress_of(self, watch: TrialCallback) -> dict[str, Any]:
        """How far a trial has come, as facts."""
        return {
            "rungs": watch.rungs,
            "steps_done": watch.step,
            "seconds": watch.seconds(),
            "seconds_per_step": watch.seconds_per_step(),
            "peak_memory_mb": memory_mb(self.options.device),
        }

    def _save_picture(self, number: int, config: TrialConfig) -> None:
        folder = self._folder(number)
        weights = folder / BEST_WEIGHTS
        if weights.exists():
            save_strip(folder / STRIP, config.model, weights, self.split.val, self.options.device)

    def _folder(self, number: int) -> Path:
        return trial_folder(self.folder, number)

    def _forget_weights(self, last: optuna.Trial) -> None:
        """Delete weights that no export will ask for: of `last` if it came to nothing, and of the beaten."""
        ranked = [trial.number for trial in ranked_trials(self.study)]
        beaten = ranked[self.spec.keep :] + [last.number] * (last.number not in ranked)
        for number in beaten:
            (self._folder(number) / BEST_WEIGHTS).unlink(missing_ok=True)


def _name(trial: optuna.Trial) -> str:
    """A trial as people know it: "trial 3 (by hand)"."""
    label = facts_of(trial).label
    return f"trial {trial.number}" + (f" ({label})" if label else "")


def _short(params: Mapping[str, Any]) -> str:
    """The settings of a trial in one line."""
    shown = (
        f"{name.split('.')[-1]}={value:.3g}" if isinstance(value, float) else f"{name.split('.')[-1]}={value}"
        for name, value in params.items()
    )
    return "  " + " ".join(shown)
