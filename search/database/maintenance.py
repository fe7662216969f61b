"""Maintenance: retrying trials, deleting studies, examining databases."""

from dataclasses import dataclass
from pathlib import Path

import optuna

from search.database.studies import FrozenTrial, Study, TrialState, open_database
from search.database.trial_facts import as_stored, facts_of

_GIVEN = "fixed_params"  # Optuna's name for the settings of an enqueued trial


def enqueue_again(study: Study, trial: FrozenTrial) -> int:
    """Enqueue a new trial with the settings of a finished one; the number of the new one.

    Settings that the finished trial had not drawn before it ended are drawn by the new one.
    """
    again = optuna.trial.create_trial(
        state=TrialState.WAITING,
        user_attrs=as_stored(
            label=f"retry of {trial.number}", replaced=facts_of(trial).replaced, retry_of=trial.number
        ),
        system_attrs={_GIVEN: {**trial.system_attrs.get(_GIVEN, {}), **trial.params}},
    )
    database = study._storage
    return database.get_trial(database.create_new_trial(study._study_id, template_trial=again)).number


def remove_study(study: Study) -> None:
    """Delete a study with all its trials from the database."""
    study._storage.delete_study(study._study_id)


@dataclass(frozen=True)
class ExaminedDatabase:
    """Facts about a database that can be opened."""

    place: str
    """The file, or the URL without its password."""
    studies: int
    trials: int
    layout: str
    """Version of Optuna's tables."""
    path: Path | None
    """This and the following fields are for SQLite only."""
    journal: str = ""
    damage: tuple[str, ...] = ()
    """Faults that SQLite's integrity check found."""


def examine_database(url: str) -> ExaminedDatabase:
    """Examine a database. `UserError` if it cannot be opened or written."""
    database = open_database(url, create=False)
    summaries = optuna.get_all_study_summaries(storage=database, include_best_trial=False)
    where = database.engine.url
    studies, trials = len(summaries), sum(summary.n_trials for summary in summaries)
    layout = database.get_current_version()
    if where.get_backend_name() != "sqlite":
        return ExaminedDatabase(where.render_as_string(hide_password=True), studies, trials, layout, None)
    with database.engine.connect() as connection:
        journal = str(connection.exec_driver_sql("pragma journal_mode").scalar())
        found = tuple(str(row[0]) for row in connection.exec_driver_sql("pragma integrity_check(3)"))
    path = Path(str(where.database))
    return ExaminedDatabase(
        str(path), studies, trials, layout, path, journal, () if found == ("ok",) else found
    )
