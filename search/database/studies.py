"""Opening databases and studies, and recording trials, through Optuna."""

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.study import Study as Study
from optuna.study import StudySummary
from optuna.trial import FrozenTrial as FrozenTrial
from optuna.trial import Trial as Trial
from optuna.trial import TrialState as TrialState

from search.database.compatibility import recipe_differences, refuse_changed_distributions
from search.database.folders import folder_name, free_folder_name
from search.database.sqlite import BUSY_TIMEOUT_S, prepare_sqlite, sqlite_file
from search.database.study_facts import FORMAT, record_study, study_facts_of
from search.database.transactions import Expected as Expected
from search.database.transactions import TransactionalStorage
from search.database.trial_facts import as_stored
from search.database.urls import parse_url, url_for_optuna, why_not_opened, without_password
from search.errors import UserError, closest
from search.study import StudySpec
from search.terminal import Kind

optuna.logging.set_verbosity(optuna.logging.WARNING)


def make_writable(folder: Path, flag: str = "--out") -> None:
    """Create `folder`. `UserError` if nothing can be written there; `flag` is what names another folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write here: {error.strerror}; {flag} names another folder"
        ) from None


def open_database(url: str, *, create: bool) -> optuna.storages.RDBStorage:
    """The database of `url`; SQLite with a write-ahead log and a busy timeout of a minute.

    Raises `UserError` for a file that is no database, that belongs to another program or cannot be written, for a
    server that does not answer, and, unless `create`, for a database that does not exist.
    """
    parsed, engine = parse_url(url), dict[str, Any]()
    if path := sqlite_file(parsed):
        if not path.exists() and create:
            make_writable(path.parent)
        prepare_sqlite(path, create)
        engine = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    else:
        # A server that was restarted has closed its connections: each is tested before it is used.
        engine = {"pool_pre_ping": True}
    shown = without_password(url)
    try:
        return _opened(url_for_optuna(parsed), engine)
    except ImportError:
        raise UserError(
            f"{shown}: the driver of PostgreSQL is missing: pip install 'restune[postgresql]'"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        why = why_not_opened(error, parsed)
        if "no longer compatible with the table schema" in str(error):
            why = "written by a newer version of Optuna than this one; pip install --upgrade restune optuna"
        raise UserError(f"{shown}: cannot be opened: {why}") from None


def _opened(url: str, engine: dict[str, Any]) -> optuna.storages.RDBStorage:
    """The database, with its tables. Retries while another process is creating the tables."""
    for _ in range(20):
        try:
            return TransactionalStorage(url, engine_kwargs=engine)
        except sqlalchemy.exc.DBAPIError as error:
            if "already exists" not in str(error) and "UNIQUE constraint" not in str(error):
                raise
        time.sleep(0.2)
    return TransactionalStorage(url, engine_kwargs=engine)


class ChangedRecipe(UserError):
    """Error: the study of that name has another recipe."""


def open_study(
    spec: StudySpec, url: str, *, continue_with_changes: bool, out: Path, data: str | None = None
) -> Study:
    """The Optuna study of `spec`, created if it is new, with a folder of its own below `out`.

    `data` is the fingerprint of its pairs: the same pairs in another place are no change of the recipe.
    Raises `ChangedRecipe` if a study of that name has trials of another recipe.
    """
    database, shown = open_database(url, create=True), without_password(url)
    study = optuna.create_study(
        study_name=spec.name, storage=database, direction="maximize", load_if_exists=True
    )
    facts = study_facts_of(study)
    if facts.format > FORMAT or len(study.directions) > 1:
        raise UserError(f"{shown}: study {spec.name!r} is {why_not_ours(study)}; choose another --name")
    stored = facts.recipe
    if stored is not None and data is not None and data == facts.data:
        stored = {**stored, **{key: spec.recipe[key] for key in ("data",) if key in spec.recipe}}
    if stored is None:
        if study.trials:
            raise UserError(
                f"{shown}: study {spec.name!r} was not made by this program; choose another --name"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["PSNR (dB)"])
    elif study.trials and (changes := recipe_differences(stored, spec.recipe)):
        if not continue_with_changes:
            raise ChangedRecipe(
                f"study {spec.name!r} in {shown} has another recipe: {'; '.join(changes)}\n"
                f"Either start a new study (--name {spec.name}-2), or go on in the old one with "
                "--continue-with-changes (scores are then only comparable where the data are the same)"
            )
        refuse_changed_distributions(study, spec)
    record_study(study, recipe=spec.recipe, format=FORMAT, folder=_own_folder(study, out))
    return study


def _own_folder(study: Study, out: Path) -> str:
    """The name of a study's folder, chosen when it is opened first. `UserError` if another study has it as well."""
    beside = {other.study_name: folder_name(other) for other in _summaries(study._storage)}
    beside.pop(study.study_name)
    facts = study_facts_of(study)
    if facts.folder is None and facts.spec is None and not study.trials:
        return free_folder_name(out, study.study_name, beside.values())
    folder = folder_name(study)
    if sharing := [name for name, other in beside.items() if other == folder]:
        raise UserError(
            f"studies {study.study_name!r} and {sharing[0]!r} have the same folder {out / folder}: one is a copy "
            "of the other, and would write over its weights; choose a new --name, or delete one of them"
        )
    return folder


def why_not_ours(study: Study) -> str | None:
    """Why nothing but its trials can be shown of a study: a database may hold those of others as well."""
    facts = study_facts_of(study)
    if facts.format > FORMAT:
        return (
            f"written by a newer version of this program (format {facts.format}, this one reads up to {FORMAT}): "
            "pip install --upgrade restune"
        )
    if len(study.directions) > 1 or (facts.recipe is None and study.get_trials(deepcopy=False)):
        return "not a study of this program"
    return None


def _summaries(database: optuna.storages.BaseStorage) -> list[StudySummary]:
    return optuna.get_all_study_summaries(storage=database, include_best_trial=False)


def load_study(name: str, url: str, *, of_anyone: bool = False) -> Study:
    """An existing study. `UserError` if it does not exist; the message lists those that do.

    Unless `of_anyone`, one that another program, or a newer version of this one, has searched is refused.
    """
    database = open_database(url, create=False)
    names = [summary.study_name for summary in _summaries(database)]
    if name not in names:
        known = ", ".join(names) or "none yet"
        raise UserError(f"{without_password(url)}: no study {name!r}{closest(name, names)} (there: {known})")
    study = optuna.load_study(study_name=name, storage=database)
    if not of_anyone and (why := why_not_ours(study)):
        raise UserError(f"study {name!r} is {why}")
    return study


def kind_of_end(state: TrialState) -> Kind | None:
    """The end of a trial in the words of the display; None if it has not ended."""
    kinds: dict[TrialState, Kind] = {
        TrialState.COMPLETE: "done",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return kinds.get(state)


def record_facts(trial: Trial, **facts: Any) -> None:
    """Store facts of an unfinished trial, by their names in `TrialFacts`; all of them or none."""
    stored = as_stored(**facts)
    change_trial(trial.study, trial._trial_id, stored)
    trial._cached_frozen_trial.user_attrs.update(stored)


def change_trial(
    study: Study,
    trial_id: int,
    facts: Mapping[str, Any],
    state: TrialState | None = None,
    only_if: Expected | None = None,
) -> bool:
    """Set attributes and the state of a trial in one transaction; False if `only_if` does not hold."""
    return database_of(study).change(trial_id, facts, state, only_if)


def database_of(study: Study) -> TransactionalStorage:
    """The database of a study, without Optuna's cache in front of it."""
    database = getattr(study._storage, "_backend", study._storage)
    assert isinstance(database, TransactionalStorage), "the study was opened by open_database"
    return database


def set_constraints(trial: Trial, excess: Mapping[str, float]) -> None:
    """Store, once, by how much a trial exceeds each limit, as Optuna's constraints: positive if it does."""
    for name, value in excess.items():
        if name not in trial.constraints:  # a second value would be ignored, with a warning
            trial.set_constraint(name, value)


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The store of pictures; its folder is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))


def attach_picture(trial: Trial, path: Path, artifacts: Path) -> None:
    """Attach the PNG at `path` to the trial, for the dashboard."""
    store = artifact_store(artifacts)
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial, mimetype="image/png")


def reported_scores(trial: Trial) -> dict[int, float]:
    """The scores that a trial has reported so far, by percent of its training."""
    return dict(trial.storage.get_trial(trial._trial_id).intermediate_values)


def record_command(study: Study, command: str) -> None:
    """Record the command line of a run with its study, unless it is recorded already."""
    commands = study_facts_of(study).commands
    if command not in commands:
        record_study(study, commands=[*commands, command])


def list_studies(database: optuna.storages.BaseStorage) -> list[Study]:
    """All studies of a database."""
    names = [summary.study_name for summary in _summaries(database)]
    return [optuna.load_study(study_name=name, storage=database) for name in names]


def studies_beside(study: Study) -> list[Study]:
    """All studies of the database of `study`, itself included."""
    return list_studies(study._storage)


def study_id(study: Study) -> int:
    """Number of a study in the database and in optuna-dashboard."""
    return study._study_id


def system_attributes(study: Study) -> Mapping[str, Any]:
    """Attributes that Optuna and optuna-dashboard store with a study."""
    return study._storage.get_study_system_attrs(study._study_id)


@dataclass(frozen=True)
class _TrialHandle:
    study: Study
    storage: optuna.storages.BaseStorage
    _trial_id: int


def trial_handle(study: Study, trial_id: int) -> Any:
    """A stand-in for Optuna's `Trial` that optuna-dashboard's functions accept, for trials that have ended."""
    return _TrialHandle(study, study._storage, trial_id)


def ranked_trials(study: Study) -> list[FrozenTrial]:
    """The completed trials, the highest score first; of equal ones the earlier first."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(done, key=lambda trial: (-(trial.value or 0.0), trial.number))


def best_trial(study: Study) -> FrozenTrial | None:
    """The completed trial with the highest score."""
    return next(iter(ranked_trials(study)), None)
