"""Changes of several attributes and the state of a trial in one transaction."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState, create_trial

from search.database.retrying import RetryingStorage, with_retries


class Expected(NamedTuple):
    """Condition of a change: the trial still has this state, and this value of an attribute (empty: none)."""

    state: TrialState
    name: str
    value: Any


class TransactionalStorage(RetryingStorage):
    """A storage with retries that can change several things in one transaction.

    Optuna has a transaction for each attribute, and on SQLite lets several processes set the same
    waiting trial to running: it reads the state before it locks.
    """

    def change(
        self,
        trial_id: int,
        attributes: Mapping[str, Any],
        state: TrialState | None = None,
        only_if: Expected | None = None,
    ) -> bool:
        """Set attributes of a trial, and its state if one is given; False if `only_if` does not hold.

        `UpdateFinishedTrialError` for a trial that has ended.
        """
        table, tries = models.TrialModel, 0

        @with_retries
        def attempt() -> bool:
            nonlocal tries
            tries += 1
            with _create_scoped_session(self.scoped_session) as session:
                # An update without effect takes the lock: of the row on a server, of the file with SQLite.
                lock = sqlalchemy.update(table).where(table.trial_id == trial_id).values(number=table.number)
                session.execute(lock.execution_options(synchronize_session=False))
                trial: Any = table.find_or_raise_by_id(trial_id, session)
                if tries > 1 and trial.state == state and self._has(session, trial, attributes):
                    return True  # the change was made, but the answer lost
                self.check_trial_is_updatable(trial_id, trial.state)
                if only_if is not None and not (
                    trial.state == only_if.state
                    and (self._attribute(session, trial, only_if.name) or None) == (only_if.value or None)
                ):
                    return False
                for name, value in attributes.items():
                    self._set_trial_attr_without_commit(
                        session, models.TrialUserAttributeModel, trial_id, name, value
                    )
                if state is not None:
                    trial.state = state
                    if state == TrialState.RUNNING:
                        trial.datetime_start = datetime.now()
                    elif state.is_finished():
                        trial.datetime_complete = datetime.now()
            return True

        return attempt()

    def begin(self, study_id: int, most: int, uncounted: str, attributes: Mapping[str, Any]) -> int | None:
        """Add a running trial; its number, or None if the study has `most` trials.

        Trials with the attribute `uncounted` are not counted.
        """

        @with_retries
        def attempt() -> int | None:
            with _create_scoped_session(self.scoped_session) as session:
                models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
                # SQLite is locked when the first row is written, so trials are counted after that.
                running = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes))
                trial = self._get_prepared_new_trial(study_id, running, session)
                attribute = models.TrialUserAttributeModel
                marked = session.query(attribute).filter(attribute.key == uncounted)
                marked = marked.join(models.TrialModel).filter(models.TrialModel.study_id == study_id)
                if trial.number + 1 - marked.count() > most:
                    session.rollback()
                    return None
                return int(trial.number)

        return attempt()

    def _has(self, session: Any, trial: Any, attributes: Mapping[str, Any]) -> bool:
        return all(self._attribute(session, trial, name) == value for name, value in attributes.items())

    def _attribute(self, session: Any, trial: Any, name: str) -> Any:
        found: Any = models.TrialUserAttributeModel.find_by_trial_and_key(trial, name, session)
        return None if found is None else json.loads(found.value_json)
