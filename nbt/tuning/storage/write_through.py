"""WriteThroughStorage: a study's trials in memory, as its one driver knows them, with every change written to the database."""

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

# Of optuna's database; it refuses to open one of another layout.
_TABLES = ("trial_params", "trial_user_attributes", "trial_system_attributes")
_MUTABLE_FIELDS = ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values")


class WriteThroughStorage(optuna.storages.BaseStorage):
    """The storage of a study that is locked for this driver, so that nobody else can have changed a trial.

    Optuna's own cache reads every unfinished trial from the database whenever trials are asked for, which they are in
    every epoch: with hundreds of running trials the driver would do little else. And it writes each parameter in a
    transaction of its own, with queries before it. Here a new trial is written at once, by `write` or with its first
    epoch or end; until then the database does not have it.

    Args:
        database: Where everything is written.
        study_id: Of the one study whose trials are read.
    """

    def __init__(self, database: optuna.storages.RDBStorage, study_id: int) -> None:
        self.database, self._study_id = database, study_id
        self._trials = database.get_all_trials(study_id, deepcopy=False)
        self._numbers_by_id = {trial._trial_id: trial.number for trial in self._trials}
        # A new trial has an id of ours, for as long as this lives, and another one in the database.
        self._database_ids = {trial._trial_id: trial._trial_id for trial in self._trials}

    # Of trials.

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Returns the trials by their numbers; a later change replaces a trial and leaves what is returned as it is."""
        self._check_study_id(study_id)
        found = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a copy of a trial."""
        return _copy(self._get(trial_id))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begins a trial; see the class for when it is written."""
        self._check_study_id(study_id)
        if self._trials and self._trials[-1]._trial_id not in self._database_ids:
            del self._numbers_by_id[self._trials.pop()._trial_id]  # its beginning failed
        if template_trial is not None and template_trial.state.is_finished():
            raise NotImplementedError("a study that is driven takes no trials that ran elsewhere")
        number = len(self._trials)
        trial = _copy(template_trial or _new_trial())
        trial.number, trial._trial_id = number, -1 - number
        self._trials.append(trial)
        self._numbers_by_id[trial._trial_id] = number
        return trial._trial_id

    def write(self, trial_id: int) -> int:
        """Writes a new trial, if that has not been done, and returns its id in the database."""
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
        """Sets a parameter."""
        trial = self._updatable_copy(trial_id)
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution
        if trial_id in self._database_ids:
            self.database.set_trial_param(self._database_ids[trial_id], param_name, param_value_internal, distribution)
        self._replace(trial)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Sets the state, and at the end of a trial its value; False where a trial does not wait to be started."""
        trial = self._updatable_copy(trial_id)
        if state is TrialState.RUNNING and trial.state is not TrialState.WAITING:
            return False
        if trial_id in self._database_ids or state.is_finished():
            done = self.database.set_trial_state_values(self.write(trial_id), state, values)
            trial = self.database.get_trial(self._database_ids[trial_id])
            trial._trial_id = trial_id
            self._replace(trial)
            return done
        trial.state, trial.datetime_start = state, datetime.now()
        self._replace(trial)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Sets what a trial has reached after an epoch."""
        trial = self._updatable_copy(trial_id)
        self.database.set_trial_intermediate_value(self.write(trial_id), step, intermediate_value)
        trial.intermediate_values[step] = intermediate_value
        self._replace(trial)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets an attribute."""
        trial = self._updatable_copy(trial_id)
        if trial_id in self._database_ids:
            self.database.set_trial_user_attr(self._database_ids[trial_id], key, value)
        trial.user_attrs[key] = _json_round_trip(value)
        self._replace(trial)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Sets an attribute of optuna's own."""
        trial = self._updatable_copy(trial_id)
        if trial_id in self._database_ids:
            self.database.set_trial_system_attr(self._database_ids[trial_id], key, value)
        trial.system_attrs[key] = _json_round_trip(value)
        self._replace(trial)

    # Of studies.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Is the database's."""
        return self.database.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Is the database's."""
        self.database.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Is the database's."""
        self.database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Is the database's."""
        self.database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Is the database's."""
        return self.database.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Is the database's."""
        return self.database.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Is the database's."""
        return self.database.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Is the database's, where a driver on another machine writes its lease."""
        return self.database.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Is the database's."""
        return self.database.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """Is the database's."""
        return self.database.get_all_studies()

    @cached_property
    def _tables(self) -> dict[str, sqlalchemy.Table]:
        known = sqlalchemy.MetaData()
        return {name: sqlalchemy.Table(name, known, autoload_with=self.database.engine) for name in _TABLES}

    def _write_content(self, database_id: int, trial: FrozenTrial) -> None:
        """Writes what there is of a new trial under its id in the database, in one transaction.

        A trial without any of it was never handed out.
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
                [{"trial_id": database_id, "key": key, "value_json": json.dumps(value)} for key, value in found.items()]
                for found in (trial.user_attrs, trial.system_attrs)
            ),
        )
        with self.database.engine.begin() as connection:
            for table, values in zip(_TABLES, rows, strict=True):
                if values:
                    connection.execute(sqlalchemy.insert(self._tables[table]), values)

    def _check_study_id(self, study_id: int) -> None:
        if study_id != self._study_id:
            raise KeyError(f"study {study_id} is not the one that is mirrored, {self._study_id}")

    def _get(self, trial_id: int) -> FrozenTrial:
        return self._trials[self._numbers_by_id[trial_id]]

    def _updatable_copy(self, trial_id: int) -> FrozenTrial:
        """Returns a copy of a trial to be changed; the database refuses to change a finished one, as this does."""
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
    found = copy.copy(trial)
    for name in _MUTABLE_FIELDS:
        setattr(found, name, dict(getattr(trial, name)))
    return found


def _json_round_trip(value: Any) -> Any:
    """Returns a value as the database gives it back."""
    return json.loads(json.dumps(value))
