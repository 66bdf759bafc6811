"""Writes new and ended trials to Optuna's tables in batches.

Optuna's own methods execute some hundred statements for a trial with its parameters, each in Python: with hundreds of
concurrent trials they would take most of the time of the driver. Everything is read through Optuna's public API.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState


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
