"""Work on one trial: train it, record all about it, and decide what its end means."""

import hashlib
import json
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch

from data import Split
from models.cost import count_macs, count_parameters
from search import pictures, space, storage, winners
from search.errors import UserError
from search.progress import Progress, clock
from search.storage import FINALE, LABEL, REPLACED, TrialState
from search.study import StudySpec, close
from search.trial import checkpoint
from search.trial.config import TrialConfig
from search.trial.initial import InitialConfig
from search.trial.rescue import Diverged, is_lack_of_memory
from search.trial.train import Stopped, TrialResult, memory_mb, train
from search.watch import StopSignals, Watch

SAME_BUG_LIMIT = 3
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


class Worker:
    """Works on the trials of one study in this process, one after another."""

    def __init__(
        self,
        spec: StudySpec,
        options: Options,
        study: storage.Study,
        split: Split,
        stop: StopSignals,
        progress: Progress,
    ) -> None:
        self.spec, self.options, self.study, self.split = spec, options, study, split
        self.stop, self.progress = stop, progress
        self.durations: list[float] = []
        """Seconds of each trial of this sitting."""
        self.spent_teramacs = 0.0
        """Compute of the trials of this sitting, a finale not counted."""
        self.bugs: list[str] = []
        for trial in study.get_trials(deepcopy=False):
            self._show(trial.state, trial.value, trial.number)

    def work_on(self, trial: optuna.Trial) -> None:
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
