"""Paths in the folder of all runs (`--out`): a folder for each study, in it one for each trial."""

from pathlib import Path

TRIAL = "trial-"
"""Prefix of the names of trial folders."""
ARTIFACTS, DATA = "artifacts", "data"
"""Folders beside those of the studies: pictures for the dashboard, and decoded images."""


def study_folder(out: Path, study: str) -> Path:
    """Folder of a study: trial folders, logs of workers, exports and reports."""
    return out / study


def trial_folder(out: Path, study: str, number: int) -> Path:
    """Folder of a trial: weights, training state and picture."""
    return study_folder(out, study) / f"{TRIAL}{number:04d}"


def confirm_folder(out: Path, study: str, number: int, seed: int) -> Path:
    """Folder of a finalist that is trained again from a new seed; deleted once the result is recorded."""
    return study_folder(out, study) / f"confirm-{number:04d}-{seed}"


def ablation_folder(out: Path, study: str, number: int, question: str) -> Path:
    """Folder of the winner that is trained again with one thing changed; deleted once the result is recorded."""
    return study_folder(out, study) / f"check-{number:04d}-{question.replace(' ', '-')}"


def artifacts_folder(out: Path) -> Path:
    """Folder of the pictures of trials, named by artifact ids."""
    return out / ARTIFACTS
