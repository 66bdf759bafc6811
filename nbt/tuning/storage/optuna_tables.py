"""Reads the trials of Optuna's tables, and writes new and ended trials to them in batches.

Optuna's own methods execute some hundred statements for a trial with its parameters, each in Python: with hundreds of
concurrent trials they would take most of the time of the driver. Its reading creates an object per parameter, and a
range of its own: a study of thousands of trials would take ten times as much time and memory.
"""

from __future__ import annotations

import copy
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter
from sys import intern
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import DateTime, Integer, column, table

_STUDIES = table("studies", column("study_id", Integer), column("study_name"))
_TRIALS = table(
    "trials",
    column("trial_id", Integer),
    column("study_id", Integer),
    *(column(name) for name in ("number", "state")),
    *(column(name, DateTime) for name in ("datetime_start", "datetime_complete")),
)
_PARAMS, _VALUES, _STEPS, _USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES = (
    table(name, *map(column, ("trial_id", *columns)))
    for name, *columns in (
        ("trial_params", "param_id", "param_name", "param_value", "distribution_json"),
        ("trial_values", "objective", "value", "value_type"),
        ("trial_intermediate_values", "step", "intermediate_value", "intermediate_value_type"),
        ("trial_user_attributes", "key", "value_json"),
        ("trial_system_attributes", "key", "value_json"),
    )
)
# Execution options with which a server sends its rows in parts, so that they are not all in memory at the same time.
IN_PARTS = {"yield_per": 10_000}
_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


class StoredTrial(FrozenTrial):
    """A trial from the database, whose contents nothing changes: its copies share them."""

    def __deepcopy__(self, memo: object) -> StoredTrial:
        """Returns a new trial with the same contents: Optuna copies trials that are added to a study."""
        return copy.copy(self)


def read_optuna_trials(connection: sqlalchemy.Connection, study: str) -> list[FrozenTrial]:
    """Returns the trials of a study in the order of their numbers, as Optuna returns them.

    Equal ranges of parameters are one object, and so are the ranges of trials that have the same ones.

    Args:
        connection: Connection to the database.
        study: Name of the study.
    """
    query = sqlalchemy.select(_TRIALS).where(_of_study(study)).order_by(_TRIALS.c.trial_id)
    trials = connection.execute(query).all()
    params = _read_params(connection, study)
    values = _read_numbers(connection, study, _VALUES)
    steps = _read_numbers(connection, study, _STEPS)
    user, system = (_read_attributes(connection, study, found) for found in (_USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES))
    return [
        StoredTrial(
            number=row.number,
            trial_id=row.trial_id,
            state=TrialState[row.state],
            value=None,
            values=[found[objective] for objective in sorted(found)] if (found := values.get(row.trial_id)) else None,
            datetime_start=row.datetime_start,
            datetime_complete=row.datetime_complete,
            params=params[row.trial_id][0] if row.trial_id in params else {},
            distributions=params[row.trial_id][1] if row.trial_id in params else {},
            user_attrs=user.get(row.trial_id, {}),
            system_attrs=system.get(row.trial_id, {}),
            intermediate_values=steps.get(row.trial_id, {}),
        )
        for row in trials
    ]


def _read_params(
    connection: sqlalchemy.Connection, study: str
) -> dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    """Returns the parameters of each trial and their ranges by the key of the trial."""
    read_range = cache(json_to_distribution)
    result: dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]] = {}
    earlier: dict[str, BaseDistribution] = {}
    rows = _rows_by_trial(connection, study, _PARAMS, _PARAMS.c.param_id)
    for key, group in groupby(rows, attrgetter("trial_id")):
        params, ranges = dict[str, Any](), dict[str, BaseDistribution]()
        for _, _, param, value, text in group:
            name = intern(param)
            ranges[name] = read_range(text)
            params[name] = ranges[name].to_external_repr(value)
        earlier = earlier if ranges == earlier else ranges
        result[key] = params, earlier
    return result


def _read_numbers(
    connection: sqlalchemy.Connection, study: str, numbers: sqlalchemy.TableClause
) -> dict[int, dict[int, float]]:
    """Returns the values of each trial by its key: a number by its objective or step."""
    result: dict[int, dict[int, float]] = defaultdict(dict)
    for key, name, value, kind in _rows_by_trial(connection, study, numbers):
        result[key][name] = _NOT_FINITE.get(kind, value)
    return result


def _read_attributes(
    connection: sqlalchemy.Connection, study: str, attributes: sqlalchemy.TableClause
) -> dict[int, dict[str, Any]]:
    """Returns the attributes of each trial by its key."""
    result: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, name, text in _rows_by_trial(connection, study, attributes):
        result[key][name] = json.loads(text)
    return result


def _rows_by_trial(
    connection: sqlalchemy.Connection, study: str, rows: sqlalchemy.TableClause, *order: Any
) -> Iterable[Any]:
    """Returns the rows of a table that belong to trials of a study, those of a trial one after another."""
    joined = rows.join(_TRIALS, rows.c.trial_id == _TRIALS.c.trial_id)
    query = sqlalchemy.select(rows).select_from(joined).where(_of_study(study)).order_by(_TRIALS.c.trial_id, *order)
    return connection.execute(query, execution_options=IN_PARTS)


def _of_study(study: str) -> Any:
    key = sqlalchemy.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == study)
    return _TRIALS.c.study_id == key.scalar_subquery()


class OptunaTables:
    """The trials of one study in Optuna's tables, whose columns are read from the database.

    Args:
        engine: Engine of the database.
        study: Name of the study, which exists.
    """

    def __init__(self, engine: sqlalchemy.Engine, study: str) -> None:
        metadata = sqlalchemy.MetaData()
        self._trials, self._params, self._values, studies = (
            sqlalchemy.Table(name, metadata, autoload_with=engine)
            for name in ("trials", "trial_params", "trial_values", "studies")
        )
        with engine.connect() as connection:
            query = sqlalchemy.select(studies.c.study_id).where(studies.c.study_name == study)
            self._study: int = connection.execute(query).scalar_one()

    def add_running(self, connection: sqlalchemy.Connection, trials: Sequence[FrozenTrial]) -> None:
        """Adds new trials as running ones, with their parameters; those that the tables have already are left out.

        A transaction may have been committed although its connection was lost before the answer.
        """
        known = self._ids(connection, trials) if trials else {}
        trials = [trial for trial in trials if trial.number not in known]
        if not trials:
            return
        rows = [
            {
                "study_id": self._study,
                "number": trial.number,
                "state": TrialState.RUNNING.name,
                "datetime_start": trial.datetime_start,
            }
            for trial in trials
        ]
        connection.execute(sqlalchemy.insert(self._trials), rows)
        ids = self._ids(connection, trials)
        params = [
            {
                "trial_id": ids[trial.number],
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for trial in trials
            for name, distribution in trial.distributions.items()
        ]
        if params:
            connection.execute(sqlalchemy.insert(self._params), params)

    def end(self, connection: sqlalchemy.Connection, trials: Sequence[FrozenTrial]) -> None:
        """Writes the state, the time of the end and, of complete trials, the value of ended trials."""
        if not trials:
            return
        ids = self._ids(connection, trials)
        for trial in trials:
            row = {"state": trial.state.name, "datetime_complete": trial.datetime_complete}
            changed = sqlalchemy.update(self._trials).where(self._trials.c.trial_id == ids[trial.number])
            connection.execute(changed.values(row))
        values = [
            {"trial_id": ids[trial.number], "objective": 0, "value": trial.value, "value_type": "FINITE"}
            for trial in trials
            if trial.state is TrialState.COMPLETE
        ]
        if values:
            written = self._values.c.trial_id.in_([row["trial_id"] for row in values])
            connection.execute(sqlalchemy.delete(self._values).where(written))
            connection.execute(sqlalchemy.insert(self._values), values)

    def _ids(self, connection: sqlalchemy.Connection, trials: Sequence[FrozenTrial]) -> dict[int, int]:
        """Returns the keys of trials by their numbers."""
        columns = self._trials.c
        wanted = columns.number.in_([trial.number for trial in trials])
        query = sqlalchemy.select(columns.number, columns.trial_id).where(columns.study_id == self._study, wanted)
        return {row.number: row.trial_id for row in connection.execute(query)}
