"""A database that is waited for: what is locked, or a server that is away for a while, costs time and no trial."""

import functools
import random
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import optuna
import sqlalchemy

from search.errors import UserError

PATIENCE_S = 300.0
"""A database may be out of reach for so long."""
QUIET_S = 5.0  # before anyone is told
LONGEST_PAUSE_S = 5.0
# What waiting does not cure, as SQLite and PostgreSQL say it.
HOPELESS = ("disk is full", "readonly", "read-only", "no space left")
DAMAGED = ("malformed", "not a database")


P = ParamSpec("P")
T = TypeVar("T")


def with_retries(method: Callable[P, T]) -> Callable[P, T]:
    """The same method, tried again for `PATIENCE_S` while the database cannot be reached or is locked.

    Pauses grow, and are random, so that many workers do not come back all at once. Every method of a
    storage may be repeated: it sets values, or makes a trial that waits for whoever takes it.
    `UserError` where no waiting helps: a full disk, a file that must not be written or is damaged.
    """

    @functools.wraps(method)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        started, pause, told = time.monotonic(), 0.05, False
        while True:
            try:
                return method(*args, **kwargs)
            except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
                why = _reason(error)
                if any(word in why.lower() for word in DAMAGED):
                    raise UserError(
                        f"the database is damaged: {why}; the same command says what to do"
                    ) from None
                if any(word in why.lower() for word in HOPELESS):
                    raise UserError(
                        f"the database: {why}; nothing is lost, the same command goes on once this is mended"
                    ) from None
                waited = time.monotonic() - started
                if not _passes(error):
                    raise
                if waited > PATIENCE_S:
                    raise UserError(
                        f"the database cannot be reached ({why}); nothing is lost, the same command goes on"
                    ) from None
            if waited > QUIET_S and not told:
                told = True
                print(f"the database cannot be reached ({why}); waiting for it", file=sys.stderr, flush=True)
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    return tried


class RetryingStorage(optuna.storages.RDBStorage):
    """Optuna's relational storage, each of its methods patient."""


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


def _passes(error: Exception) -> bool:
    """Whether this is trouble of the connection or a lock, not of what was asked."""
    cause: Any = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
    return isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError) or bool(
        getattr(cause, "connection_invalidated", False)
    )


def _reason(error: Exception) -> str:
    cause: Any = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
    return str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]
