"""Deleting a study, completely or not at all, and a summary of what would be deleted."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from search.database import (
    ARTIFACTS,
    DATA,
    TRIAL,
    Record,
    Study,
    artifacts_folder,
    best_record,
    facts_of,
    name_of_active_run,
    read_records,
    remove_study,
    studies_beside,
    study_folder,
)
from search.errors import UserError
from search.manage.stop import workers_at_work

# Folders in OUT that belong to no study, even if a study has that name.
OTHERS = (ARTIFACTS, DATA)


@dataclass(frozen=True)
class StudyContents:
    """All that is deleted with a study: trials, files, pictures."""

    study: str
    trials: int
    best: Record | None
    folder: Path | None
    """Folder of states, weights, exports and reports; None if there is none."""
    files: int
    size_bytes: int
    inside: tuple[str, ...]
    """Names in the folder that belong to no trial: exports, reports."""
    pictures: tuple[Path, ...]
    """Attached to its trials."""

    def __str__(self) -> str:
        best = f", the best at {self.best.psnr_db:.2f} dB ({self.best.name})" if self.best else ""
        lines = [f"{self.study}: {self.trials} trial{'s' * (self.trials != 1)}{best}"]
        if self.folder is not None:
            more = f", with {', '.join(self.inside)}" if self.inside else ""
            size = f"{self.files} files, {self.size_bytes / 1e6:.1f} MB{more}"
            linked = "a link; what it leads to stays"
            lines.append(f"{self.folder}: {linked if self.folder.is_symlink() else size}")
        if self.pictures:
            lines.append(f"{self.pictures[0].parent}: {len(self.pictures)} pictures of its trials")
        return "\n".join(lines)


def study_contents(study: Study, out: Path) -> StudyContents:
    """All that `delete_study` would delete with a study."""
    records = read_records(study)
    folder = _folder(study, out)
    own = folder if folder and not folder.is_symlink() else None
    files = [path for path in own.rglob("*") if path.is_file()] if own else []
    inside = [path.name for path in own.iterdir() if not path.name.startswith(TRIAL)] if own else []
    pictures = [artifacts_folder(out) / key for trial in records for key in trial.pictures]
    return StudyContents(
        study=study.study_name,
        trials=len(records),
        best=best_record(records),
        folder=folder,
        files=len(files),
        size_bytes=sum(path.stat().st_size for path in files),
        inside=tuple(sorted(inside)),
        pictures=tuple(path for path in pictures if path.is_file()),
    )


def delete_study(study: Study, contents: StudyContents) -> None:
    """Delete a study and all that goes with it. `UserError` while someone is at work on it.

    Its folder is renamed before the database deletes it, and renamed back if that fails: a new
    study of the same name never finds old states.
    """
    refuse_at_work(study)
    doomed = None
    if contents.folder is not None:
        doomed = contents.folder.with_name(f".deleted-{contents.folder.name}")
        _remove(doomed)  # what an interrupted attempt left
        contents.folder.rename(doomed)
    try:
        remove_study(study)
    except BaseException:
        if doomed is not None and contents.folder is not None:
            doomed.rename(contents.folder)
        raise
    for picture in contents.pictures:
        picture.unlink(missing_ok=True)
    if doomed is not None:
        _remove(doomed)


def refuse_at_work(study: Study) -> None:
    """`UserError` while someone is at work on a study."""
    if run := name_of_active_run(study):
        raise UserError(
            f"a run ({run}) is at work on {study.study_name}; `python -m search stop {study.study_name}` first"
        )
    if working := workers_at_work(study):
        names = ", ".join(str(facts_of(trial).owner["name"]) for trial in working.values())
        raise UserError(
            f"{names} {'is' if len(working) == 1 else 'are'} at work on {study.study_name}; "
            f"`python -m search stop {study.study_name}` first"
        )


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _folder(study: Study, out: Path) -> Path | None:
    """The folder of a study; nothing that others share."""
    folder = study_folder(out, study)
    beside = [other for other in studies_beside(study) if other.study_name != study.study_name]
    if folder.name in OTHERS or folder in (study_folder(out, other) for other in beside):
        return None
    return folder if folder.is_dir() else None
