"""Deleting a study: what would go, and how it goes without leaving half of it behind."""

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
    read_records,
    remove_study,
    run_at_work,
    studies_beside,
    study_folder,
)
from search.errors import UserError
from search.manage.stop import workers_at_work

# Folders in OUT that are nobody's study, whatever a study is called.
OTHERS = (ARTIFACTS, DATA)


@dataclass(frozen=True)
class Belongings:
    """All that goes with a study."""

    study: str
    trials: int
    best: Record | None
    folder: Path | None
    """States, weights, and what was written about it; None if there is none."""
    files: int
    size_bytes: int
    inside: tuple[str, ...]
    """What lies in the folder beside trials: exports, reports."""
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


def study_belongings(study: Study, out: Path) -> Belongings:
    """What would go with a study."""
    found = read_records(study)
    folder = _folder(study, out)
    own = folder if folder and not folder.is_symlink() else None
    files = [path for path in own.rglob("*") if path.is_file()] if own else []
    inside = [path.name for path in own.iterdir() if not path.name.startswith(TRIAL)] if own else []
    pictures = [artifacts_folder(out) / key for trial in found for key in trial.pictures]
    return Belongings(
        study=study.study_name,
        trials=len(found),
        best=best_record(found),
        folder=folder,
        files=len(files),
        size_bytes=sum(path.stat().st_size for path in files),
        inside=tuple(sorted(inside)),
        pictures=tuple(path for path in pictures if path.is_file()),
    )


def delete_study(study: Study, found: Belongings) -> None:
    """Delete a study and all that goes with it. `UserError` while someone is at work on it.

    Its folder is out of the way before the database forgets it, and back if the database cannot: a new
    study of the same name never meets old states.
    """
    refuse_at_work(study)
    doomed = None
    if found.folder is not None:
        doomed = found.folder.with_name(f".deleted-{found.folder.name}")
        _remove(doomed)  # what an interrupted attempt left
        found.folder.rename(doomed)
    try:
        remove_study(study)
    except BaseException:
        if doomed is not None and found.folder is not None:
            doomed.rename(found.folder)
        raise
    for picture in found.pictures:
        picture.unlink(missing_ok=True)
    if doomed is not None:
        _remove(doomed)


def refuse_at_work(study: Study) -> None:
    """`UserError` while someone is at work on a study."""
    if run := run_at_work(study):
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
