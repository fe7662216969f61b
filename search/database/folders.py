"""Paths in the folder of all runs (`--out`): a folder for each study, in it one for each trial."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from search.database.study_facts import StudyFacts, study_facts_of
from search.database.trial_facts import HasAttributes

TRIAL = "trial-"
"""Prefix of the names of trial folders."""
ARTIFACTS, DATA = "artifacts", "data"
"""Folders beside those of the studies: pictures for the dashboard, and decoded images."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ONE_FOLDER = re.compile(r"[^\s/\\.\x00-\x1f][^/\\\x00-\x1f]{0,199}")  # what is recorded may be a stranger's
_RESERVED = re.compile(rf"{ARTIFACTS}|{DATA}|search\.db.*|compare(-.*)?", re.IGNORECASE)
LONGEST = 60  # bytes, of what is kept of a name that cannot be that of a folder


class NamedStudy(HasAttributes, Protocol):
    """Optuna's `Study` and `StudySummary`."""

    @property
    def study_name(self) -> str: ...


def study_folder(out: Path, study: NamedStudy) -> Path:
    """Folder of a study: trial folders, logs of workers, exports and reports. A study that is renamed keeps it."""
    return out / folder_name(study)


def folder_name(study: NamedStudy) -> str:
    """The name of a study's folder: as recorded, else made from the name under which it was last searched."""
    facts = study_facts_of(study)
    if facts.folder is not None and _ONE_FOLDER.fullmatch(facts.folder):
        return facts.folder
    return safe_name(_searched_as(facts) or study.study_name)


def safe_name(name: str) -> str:
    """`name` where a folder can be called so everywhere, else what is left of it and a digest: never a path."""
    if _PLAIN.fullmatch(name) and len(name) <= 200:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    words = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._-")
    return f"{words.encode()[:LONGEST].decode(errors='ignore')}-{digest}".lstrip("-")


def free_folder_name(out: Path, name: str, taken: Collection[str]) -> str:
    """A name for the folder of a new study: no other study's, and nothing that is there and in use."""
    known = {other.casefold() for other in taken}
    base = safe_name(name) if not _RESERVED.fullmatch(name) else f"study-{name}"
    names = [base, *(f"{base}-{count}" for count in range(2, len(known) + 1000))]
    return next(one for one in names if one.casefold() not in known and not _in_use(out / one))


def trial_folder(study: Path, number: int) -> Path:
    """Folder of a trial in the folder of its study: weights, training state and picture."""
    return study / f"{TRIAL}{number:04d}"


def confirm_folder(study: Path, number: int, seed: int) -> Path:
    """Folder of a finalist that is trained again from a new seed; deleted once the result is recorded."""
    return study / f"confirm-{number:04d}-{seed}"


def ablation_folder(study: Path, number: int, question: str) -> Path:
    """Folder of the winner that is trained again with one thing changed; deleted once the result is recorded."""
    return study / f"check-{number:04d}-{question.replace(' ', '-')}"


def artifacts_folder(out: Path) -> Path:
    """Folder of the pictures of trials, named by artifact ids."""
    return out / ARTIFACTS


def _searched_as(facts: StudyFacts) -> str | None:
    """The name under which a study was last searched: studies from before folders were recorded have its folder."""
    try:
        name = json.loads(facts.spec or "{}").get("name")
    except (ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _in_use(path: Path) -> bool:
    """Whether something is there that a new study must not write over."""
    return path.exists() and (not path.is_dir() or any(path.glob(f"{TRIAL}*")))
