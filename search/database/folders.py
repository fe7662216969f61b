"""Where files lie in the folder of all runs (`--out`): a folder for each study, in it one for each trial."""

from pathlib import Path

TRIAL = "trial-"
"""How the names of trials' folders begin."""
ARTIFACTS, DATA = "artifacts", "data"
"""Folders beside those of the studies: pictures for the dashboard, decoded images."""


def study_folder(out: Path, study: str) -> Path:
    """Its trials' folders, logs of workers, exports and reports."""
    return out / study


def trial_folder(out: Path, study: str, number: int) -> Path:
    """A trial's weights, state and picture."""
    return study_folder(out, study) / f"{TRIAL}{number:04d}"


def confirm_folder(out: Path, study: str, number: int, seed: int) -> Path:
    """A finalist that is trained again from a new seed; gone once it is recorded."""
    return study_folder(out, study) / f"confirm-{number:04d}-{seed}"


def ablation_folder(out: Path, study: str, number: int, question: str) -> Path:
    """The winner that is trained again with one thing changed; gone once it is recorded."""
    return study_folder(out, study) / f"check-{number:04d}-{question.replace(' ', '-')}"


def artifacts_folder(out: Path) -> Path:
    """Pictures that belong to trials, by their ids."""
    return out / ARTIFACTS
