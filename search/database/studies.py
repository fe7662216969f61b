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
from optuna.trial import FrozenTrial as FrozenTrial
from optuna.trial import Trial as Trial
from optuna.trial import TrialState as TrialState

from search.database.compatibility import recipe_differences, refuse_changed_distributions
from search.database.sqlite import BUSY_TIMEOUT_S, prepare_sqlite, sqlite_file
from search.database.study_facts import record_study, study_facts_of
from search.database.transactions import Expected as Expected
from search.database.transactions import TransactionalStorage
from search.database.trial_facts import as_stored
from search.errors import UserError, closest, first_line
from search.study import StudySpec
from search.terminal import Kind

optuna.logging.set_verbosity(optuna.logging.WARNING)


def default_storage_url(out: Path) -> str:
    """URL of the database in a folder of runs."""
    return f"sqlite:///{(out / 'search.db').as_posix()}"


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
    engine: dict[str, Any] = {}
    if path := sqlite_file(url):
        if not path.exists() and create:
            make_writable(path.parent)
        prepare_sqlite(path, create)
        engine = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    else:
        # A server that was restarted has closed its connections: each is tested before it is used.
        engine = {"pool_pre_ping": True}
    try:
        return _opened(url, engine)
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or "the one its documentation names"
        raise UserError(
            f"{_without_password(url)}: this kind of database needs a driver: pip install {driver}"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        cause = getattr(error, "orig", None) or error  # the message of the driver, without the SQL statement
        raise UserError(f"{_without_password(url)}: cannot be opened: {first_line(cause)}") from None


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


def open_study(spec: StudySpec, url: str, *, continue_with_changes: bool, data: str | None = None) -> Study:
    """The Optuna study of `spec`, created if it is new.

    `data` is the fingerprint of its pairs: the same pairs in another place are no change of the recipe.
    Raises `ChangedRecipe` if a study of that name has trials of another recipe.
    """
    database = open_database(url, create=True)
    study = optuna.create_study(
        study_name=spec.name, storage=database, direction="maximize", load_if_exists=True
    )
    facts = study_facts_of(study)
    stored = facts.recipe
    if stored is not None and data is not None and data == facts.data:
        stored = {**stored, **{key: spec.recipe[key] for key in ("data",) if key in spec.recipe}}
    if stored is None:
        if study.trials:
            raise UserError(f"{url}: study {spec.name!r} was not made by this program; choose another --name")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["PSNR (dB)"])
    elif study.trials and (changes := recipe_differences(stored, spec.recipe)):
        if not continue_with_changes:
            raise ChangedRecipe(
                f"study {spec.name!r} in {url} has another recipe: {'; '.join(changes)}\n"
                f"Either start a new study (--name {spec.name}-2), or go on in the old one with "
                "--continue-with-changes (scores are then only comparable where the data are the same)"
            )
        refuse_changed_distributions(study, spec)
    record_study(study, recipe=spec.recipe)
    return study


def load_study(name: str, url: str) -> Study:
    """An existing study. `UserError` if it does not exist; the message lists those that do."""
    database = open_database(url, create=False)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage=database)]
    if name not in names:
        known = ", ".join(names) or "none yet"
        raise UserError(f"{_without_password(url)}: no study {name!r}{closest(name, names)} (there: {known})")
    return optuna.load_study(study_name=name, storage=database)


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
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage=database)]
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


def _without_password(url: str) -> str:
    return sqlalchemy.make_url(url).render_as_string(hide_password=True)
