"""Loading a trained trial: the best of a study, or any other that has weights."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from data.sources import PairsConfig, Split
from search.database import (
    FrozenTrial,
    Study,
    TrialState,
    facts_of,
    ranked_trials,
    study_facts_of,
    study_folder,
    trial_folder,
)
from search.errors import UserError, first_line
from search.study import LimitsConfig, StudySpec
from search.trial import BEST_WEIGHTS, TrialConfig, load_weights


@dataclass(frozen=True)
class TrainedTrial:
    """A trial, its config, the file of its averaged weights, and the model with these weights on the CPU."""

    trial: FrozenTrial
    config: TrialConfig
    weights: Path
    model: nn.Module

    @property
    def psnr_db(self) -> float:
        """Score of the weights: the final one, or that of the best rung so far."""
        value = self.trial.value
        return float(max(self.trial.intermediate_values.values()) if value is None else value)

    @property
    def megapixels(self) -> float:
        """Upper limit of validation pixels for this score, in 10^6."""
        ended = self.trial.value is not None
        return self.config.val_megapixels if ended else self.config.rung_megapixels

    @property
    def standing(self) -> str:
        """State of the trial in words: complete, or how far its training is."""
        if self.trial.state == TrialState.COMPLETE:
            return "complete"
        reached = self.trial.intermediate_values
        best = max(reached, key=lambda percent: reached[percent])
        return (
            f"not finished: waiting at {max(reached)} % of its training, weights of its best rung ({best} %)"
        )


def load_best(study: Study, out: Path, limits: LimitsConfig | None = None) -> TrainedTrial:
    """The complete trial with the highest score, of those within `limits`.

    Raises `UserError` if there is none, or if its weights are missing or damaged.
    """
    return load_trained_trial(study, _within(study, limits)[0], out)


def load_top(study: Study, count: int, out: Path, limits: LimitsConfig | None = None) -> list[TrainedTrial]:
    """The `count` best complete trials within `limits` whose weights are on disk, the best first; or fewer.

    Raises `UserError` if there is no such trial, or if weights are damaged.
    """
    folder, within = study_folder(out, study), _within(study, limits)
    kept = [trial for trial in within if _weights(folder, trial).is_file()]
    return [load_trained_trial(study, trial, out) for trial in (kept or within[:1])[:count]]


def load_numbered(study: Study, number: int, out: Path) -> TrainedTrial:
    """Trial `number`, complete or waiting at a rung. Raises `UserError` if it is none of these, or has no weights."""
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {number}; "
            + (f"allowed: 0 to {len(trials) - 1}" if trials else "it has none yet")
        )
    trial = trials[number]
    if trial.state == TrialState.RUNNING:
        raise UserError(f"trial {number} is running; export it once it waits at a rung or is complete")
    begun = trial.value is not None or trial.intermediate_values
    if not begun or trial.state in (TrialState.FAIL, TrialState.PRUNED):
        what = facts_of(trial).ended or trial.state.name.lower()
        raise UserError(f"trial {number} has no weights ({what}); `python -m search trials` shows all trials")
    return load_trained_trial(study, trial, out)


def _within(study: Study, limits: LimitsConfig | None) -> list[FrozenTrial]:
    name, complete = study.study_name, ranked_trials(study)
    within = [trial for trial in complete if limits is None or limits.within(facts_of(trial))]
    if complete and not within:
        raise UserError(
            f"study {name!r}: none of its {len(complete)} complete trials is known to be within {limits}; "
            f"`python -m search pareto {name}` shows what there is"
        )
    if not within:
        raise UserError(
            f"study {name!r} has no finished trial yet; `python -m search run --study {name}` goes on"
        )
    return within


def _weights(folder: Path, trial: FrozenTrial) -> Path:
    return trial_folder(folder, trial.number) / BEST_WEIGHTS


def load_trained_trial(study: Study, trial: FrozenTrial, out: Path) -> TrainedTrial:
    """This trial of a study. Raises `UserError` if its weights are missing or damaged."""
    config = stored_config(trial)
    weights = _weights(study_folder(out, study), trial)
    if not weights.is_file():
        raise UserError(f"{weights}: the weights of trial {trial.number} are gone; is --out right?")
    model = config.model.build().eval()
    try:
        load_weights(weights, model)
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights}: damaged: {first_line(error)}") from None
    return TrainedTrial(trial, config, weights, model)


def stored_config(trial: FrozenTrial) -> TrialConfig:
    """Config of a trial. Raises `UserError` if this version cannot read it."""
    try:
        return TrialConfig.model_validate_json(facts_of(trial).config_text())
    except ValidationError:
        raise UserError(f"trial {trial.number} was made by another version of this program") from None


def open_images(study: Study, config: TrialConfig, out: Path, elsewhere: Path | None = None) -> Split:
    """The pairs that a trial was trained on: in `elsewhere`, or where it found them, or where its study has them now.

    Raises `DataError` if they are in none of these places, or there is something wrong with them.
    """
    data = config.data
    if isinstance(data, PairsConfig):
        spec = study_facts_of(study).spec
        now = StudySpec.model_validate_json(spec).recipe.get("data", {}) if spec else {}
        if elsewhere is not None:
            data = data.model_copy(update={"dir": elsewhere})
        elif not data.dir.exists() and now.get("kind") == "pairs" and Path(now["dir"]).exists():
            data = PairsConfig.model_validate(now)
    return data.open(seed=0, cache=out)


def refuse_other_images(trial: FrozenTrial, split: Split) -> None:
    """Raises `UserError` if the trial was trained and scored on other images than those of `split`."""
    if split.fingerprint != facts_of(trial).data:
        raise UserError(
            f"trial {trial.number} was scored on other images: the files of the study's data have changed since; "
            "put them back, or start a new study (run --name, compare --label)"
        )
