"""The best trial of a study, as a model that restores."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from data import Split
from search import storage
from search.errors import UserError
from search.limits import LimitsConfig
from search.storage import FrozenTrial, Study
from search.trial import checkpoint
from search.trial.config import TrialConfig


@dataclass(frozen=True)
class Winner:
    """A trial, what it was trained by, and its averaged weights: in a file, and in `model` on the CPU."""

    trial: FrozenTrial
    config: TrialConfig
    weights: Path
    model: nn.Module


def load(study: Study, out: Path, limits: LimitsConfig | None = None) -> Winner:
    """The complete trial with the highest score, of those within `limits`.

    Raises `UserError` if there is none, or if its weights are gone or damaged.
    """
    name, complete = study.study_name, storage.best_first(study)
    within = [trial for trial in complete if limits is None or limits.within(trial.user_attrs)]
    trial = next(iter(within), None)
    if complete and trial is None:
        raise UserError(
            f"study {name!r}: none of its {len(complete)} complete trials is known to be within {limits}; "
            f"`python -m search pareto {name}` shows what there is"
        )
    if trial is None:
        raise UserError(
            f"study {name!r} has no finished trial yet; `python -m search run --study {name}` goes on"
        )
    return of_trial(name, trial, out)


def of_trial(name: str, trial: FrozenTrial, out: Path) -> Winner:
    """That trial of study `name`. Raises `UserError` if its weights are gone or damaged."""
    config = config_of(trial)
    weights = out / name / f"trial-{trial.number:04d}" / checkpoint.BEST
    if not weights.is_file():
        raise UserError(f"{weights}: the weights of trial {trial.number} are gone; is --out right?")
    model = config.model.build().eval()
    try:
        checkpoint.load_weights(weights, model)
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{weights}: damaged: {str(error).splitlines()[0]}") from None
    return Winner(trial, config, weights, model)


def config_of(trial: FrozenTrial) -> TrialConfig:
    """What a trial was trained by. Raises `UserError` for one that this version does not know."""
    try:
        return TrialConfig.model_validate_json(trial.user_attrs["config"])
    except (KeyError, ValidationError):
        raise UserError(f"trial {trial.number} was made by another version of this program") from None


def refuse_other_images(trial: FrozenTrial, split: Split) -> None:
    """Raises `UserError` unless the trial was trained and scored on the images of `split`."""
    if split.fingerprint != trial.user_attrs["data"]:
        raise UserError(
            f"trial {trial.number} was scored on other images: the files of the study's data have changed since; "
            "put them back, or start a new study (run --name, compare --label)"
        )
