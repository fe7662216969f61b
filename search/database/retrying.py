"""Retries of database operations, while the database is locked or its server cannot be reached."""

import functools
import random
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import optuna
import sqlalchemy

from search.errors import UserError

MAX_WAIT_S = 300.0
"""Longest time for which an operation is retried."""
SAY_WAITING_AFTER_S = 5.0
"""After this time, a message says that the database cannot be reached."""
MAX_PAUSE_S = 5.0
# Parts of error messages of SQLite and PostgreSQL for faults that do not pass by waiting.
PERMANENT_FAULTS = ("disk is full", "readonly", "read-only", "no space left")
DAMAGE_FAULTS = ("malformed", "not a database")


P = ParamSpec("P")
T = TypeVar("T")


def with_retries(method: Callable[P, T]) -> Callable[P, T]:
    """The same method, retried for `MAX_WAIT_S` while the database cannot be reached or is locked.

    Pauses grow and are random, so that many workers do not return all at once. Methods of a storage may be repeated:
    they set values, or add a waiting trial.
    `UserError` if waiting cannot help: a full disk, a file that is read-only or damaged.
    """

    @functools.wraps(method)
    def with_retry(*args: P.args, **kwargs: P.kwargs) -> T:
        started, pause, has_announced = time.monotonic(), 0.05, False
        while True:
            try:
                return method(*args, **kwargs)
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
                why = _reason(error)
                if any(word in why.lower() for word in DAMAGE_FAULTS):
                    raise UserError(
                        f"the database is damaged: {why}; the same command says what to do"
                    ) from None
                if any(word in why.lower() for word in PERMANENT_FAULTS):
                    raise UserError(
                        f"the database: {why}; nothing is lost, the same command goes on once this is mended"
                    ) from None
                waited = time.monotonic() - started
                if not _is_transient(error):
                    raise
                if waited > MAX_WAIT_S:
                    raise UserError(
                        f"the database cannot be reached ({why}); nothing is lost, the same command goes on"
                    ) from None
            if waited > SAY_WAITING_AFTER_S and not has_announced:
                has_announced = True
                print(f"the database cannot be reached ({why}); waiting for it", file=sys.stderr, flush=True)
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, MAX_PAUSE_S)

    return with_retry


class RetryingStorage(optuna.storages.RDBStorage):
    """Optuna's relational storage with retries in each of its methods."""


for _name in (
    "create_new_trial",
    "get_all_studies",
    "get_all_trials",
    "get_best_trial",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "_get_trials",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(RetryingStorage, _name, with_retries(getattr(optuna.storages.RDBStorage, _name)))


def _is_transient(error: Exception) -> bool:
    """True if the error comes from the connection or a lock, not from the operation itself."""
    cause: Any = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
    return isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError) or bool(
        getattr(cause, "connection_invalidated", False)
    )


def _reason(error: Exception) -> str:
    cause: Any = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
    return str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]
