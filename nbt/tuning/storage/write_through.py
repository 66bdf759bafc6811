"""An Optuna storage that keeps the trials of a study in memory and writes every change to the database."""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

# Tables of Optuna's database; Optuna refuses to open a database with another schema.
_TABLES = ("trial_params", "trial_user_attributes", "trial_system_attributes")
_MUTABLE_FIELDS = ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values")


class WriteThroughStorage(optuna.storages.BaseStorage):
    """The storage of a study that is locked for this driver, so that no other process changes its trials.

    Optuna's cached storage reads all unfinished trials from the database at every access to the trials, that is, in
    every epoch, which is slow with hundreds of running trials. It also writes each parameter in its own transaction.
    This storage writes a new trial with all parameters at a call of `write`, at its first epoch or at its end; until
    then the database does not contain the trial.

    Args:
        database: The storage to which everything is written.
        study_id: Id of the only study whose trials can be accessed.
    """

    def __init__(self, database: optuna.storages.RDBStorage, study_id: int) -> None:
        self.database, self._study_id = database, study_id
        self._trials = database.get_all_trials(study_id, deepcopy=False)
        self._numbers_by_id = {trial._trial_id: trial.number for trial in self._trials}
        # A new trial has a negative id in memory, as long as this object exists, and another id in the database.
        self._database_ids = {trial._trial_id: trial._trial_id for trial in self._trials}

    # Methods for trials.

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Returns the trials in the order of their numbers; later changes do not modify the returned objects."""
        self._check_study_id(study_id)
        selected = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(selected) if deepcopy else selected

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a copy of a trial."""
        return _copy(self._get(trial_id))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Creates a trial in memory; it is written later, see the class."""
        self._check_study_id(study_id)
        if self._trials and self._trials[-1]._trial_id not in self._database_ids:
            del self._numbers_by_id[self._trials.pop()._trial_id]  # its creation failed
        if template_trial is not None and template_trial.state.is_finished():
            raise NotImplementedError("trials that are already finished cannot be added to a locked study")
        number = len(self._trials)
        trial = _copy(template_trial or _new_trial())
        trial.number, trial._trial_id = number, -1 - number
        self._trials.append(trial)
        self._numbers_by_id[trial._trial_id] = number
        return trial._trial_id

    def write(self, trial_id: int) -> int:
        """Writes a new trial unless it is written already, and returns its id in the database."""
        if trial_id not in self._database_ids:
            trial = self._get(trial_id)
            empty = _new_trial()
            empty.datetime_start = trial.datetime_start
            database_id = self.database.create_new_trial(self._study_id, empty)
            self._write_content(database_id, trial)
            self._database_ids[trial_id] = database_id
        return self._database_ids[trial_id]

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Sets a parameter of a trial."""
        trial = self._updatable_copy(trial_id)
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution
        if trial_id in self._database_ids:
            self.database.set_trial_param(self._database_ids[trial_id], param_name, param_value_internal, distribution)
        self._replace(trial)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Sets the state of a trial and, at its end, its value.

        Returns:
            False if a trial should be started that is not waiting, else True.
        """
        trial = self._updatable_copy(trial_id)
        if state is TrialState.RUNNING and trial.state is not TrialState.WAITING:
            return False
        if trial_id in self._database_ids or state.is_finished():
            updated = self.database.set_trial_state_values(self.write(trial_id), state, values)
            trial = self.database.get_trial(self._database_ids[trial_id])
            trial._trial_id = trial_id
            self._replace(trial)
            return updated
        trial.state, trial.datetime_start = state, datetime.now()
        self._replace(trial)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Sets the intermediate value of a trial after an epoch."""
        trial = self._updatable_copy(trial_id)
        self.database.set_trial_intermediate_value(self.write(trial_id), step, intermediate_value)
        trial.intermediate_values[step] = intermediate_value
        self._replace(trial)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets a user attribute of a trial."""
        trial = self._updatable_copy(trial_id)
        if trial_id in self._database_ids:
            self.database.set_trial_user_attr(self._database_ids[trial_id], key, value)
        trial.user_attrs[key] = _json_round_trip(value)
        self._replace(trial)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets a system attribute of a trial."""
        trial = self._updatable_copy(trial_id)
        if trial_id in self._database_ids:
            self.database.set_trial_system_attr(self._database_ids[trial_id], key, value)
        trial.system_attrs[key] = _json_round_trip(value)
        self._replace(trial)

    # Methods for studies, forwarded to the database.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Creates a study in the database."""
        return self.database.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Deletes a study from the database."""
        self.database.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Sets a user attribute of a study."""
        self.database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Sets a system attribute of a study."""
        self.database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Returns the id of a study."""
        return self.database.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Returns the name of a study."""
        return self.database.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Returns the directions of a study."""
        return self.database.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns the user attributes of a study from the database, where another driver may write its lease."""
        return self.database.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns the system attributes of a study."""
        return self.database.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """Returns all studies of the database."""
        return self.database.get_all_studies()

    @cached_property
    def _tables(self) -> dict[str, sqlalchemy.Table]:
        metadata = sqlalchemy.MetaData()
        return {name: sqlalchemy.Table(name, metadata, autoload_with=self.database.engine) for name in _TABLES}

    def _write_content(self, database_id: int, trial: FrozenTrial) -> None:
        """Writes parameters and attributes of a new trial in one transaction.

        If the process ends before this call, the database contains an empty trial that was never given to a worker.
        """
        rows = (
            [
                {
                    "trial_id": database_id,
                    "param_name": name,
                    "param_value": distribution.to_internal_repr(trial.params[name]),
                    "distribution_json": distribution_to_json(distribution),
                }
                for name, distribution in trial.distributions.items()
            ],
            *(
                [
                    {"trial_id": database_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in attributes.items()
                ]
                for attributes in (trial.user_attrs, trial.system_attrs)
            ),
        )
        with self.database.engine.begin() as connection:
            for table, values in zip(_TABLES, rows, strict=True):
                if values:
                    connection.execute(sqlalchemy.insert(self._tables[table]), values)

    def _check_study_id(self, study_id: int) -> None:
        if study_id != self._study_id:
            raise KeyError(f"study {study_id}: this storage holds study {self._study_id} only")

    def _get(self, trial_id: int) -> FrozenTrial:
        return self._trials[self._numbers_by_id[trial_id]]

    def _updatable_copy(self, trial_id: int) -> FrozenTrial:
        """Returns a copy of a trial to be changed; raises UpdateFinishedTrialError if the trial is finished."""
        trial = self._get(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return _copy(trial)

    def _replace(self, trial: FrozenTrial) -> None:
        self._trials[trial.number] = trial


def _new_trial() -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _copy(trial: FrozenTrial) -> FrozenTrial:
    duplicate = copy.copy(trial)
    for name in _MUTABLE_FIELDS:
        setattr(duplicate, name, dict(getattr(trial, name)))
    return duplicate


def _json_round_trip(value: Any) -> Any:
    """Returns a value as it is after storing and reading."""
    return json.loads(json.dumps(value))
