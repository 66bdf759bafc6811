"""The tables of nbt in a study database: learning curves and resumable state of trials, and predictions of runs.

Optuna's own tables hold the studies with their attributes and the trials with parameters, states and values;
`nbt.tuning.storage.optuna_tables` reads and writes the trials. Trials of version 0.1 have no rows here: their user
attributes in Optuna's tables hold the same values, with the learning curve as columns
(`nbt.tuning.storage.codec.encode_curve`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import JSON, Boolean, Column, Double, Integer, LargeBinary, String, bindparam

from nbt._version import __version__
from nbt.errors import UsageError
from nbt.training.results import EpochResult, last_score
from nbt.tuning.storage import codec
from nbt.tuning.storage.optuna_tables import IN_PARTS, read_optuna_trials

SCHEMA_VERSION = 1
"""Version of the tables below; it is raised when an older nbt could no longer read them."""

_metadata = sqlalchemy.MetaData()
_SCHEMA = sqlalchemy.Table(
    "nbt_schema",
    _metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("written_by", String(64), nullable=False),
)
_TRIALS = sqlalchemy.Table(
    "nbt_trials",
    _metadata,
    Column("study", String(120), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("attributes", JSON, nullable=False),
    Column("system_attributes", JSON, nullable=False),
    Column("trained", Integer, nullable=False),
    sqlite_with_rowid=False,
)
_EPOCHS = sqlalchemy.Table(
    "nbt_epochs",
    _metadata,
    Column("study", String(120), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("train_loss", Double),
    Column("val_loss", Double),
    Column("val_accuracy", Double),
    Column("seconds", Double),
    Column("diverged", Boolean, nullable=False),
    Column("metrics", JSON, nullable=False),
    sqlite_with_rowid=False,
)
_PREDICTIONS = sqlalchemy.Table(
    "nbt_predictions",
    _metadata,
    Column("study", String(120), primary_key=True),
    Column("run", String(120), primary_key=True),
    # With this length, MySQL chooses a type for more than 64 kB; other databases ignore it.
    Column("predictions", LargeBinary(2**32 - 1), nullable=False),
)
_CURVE_FIELDS = tuple(column.name for column in _EPOCHS.columns)[2:]
_DELETE_TRIAL = sqlalchemy.delete(_TRIALS).where(
    _TRIALS.c.study == bindparam("of_study"), _TRIALS.c.number == bindparam("of_number")
)
_DELETE_EPOCHS = sqlalchemy.delete(_EPOCHS).where(
    _EPOCHS.c.study == bindparam("of_study"),
    _EPOCHS.c.number == bindparam("of_number"),
    _EPOCHS.c.epoch >= bindparam("first_epoch"),
)


def create_tables(engine: sqlalchemy.Engine) -> None:
    """Creates the tables that are missing and records their version."""
    _metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.execute(sqlalchemy.select(_SCHEMA.c.version)).first() is None:
            connection.execute(sqlalchemy.insert(_SCHEMA), {"version": SCHEMA_VERSION, "written_by": __version__})


def check_schema(engine: sqlalchemy.Engine, database: str) -> None:
    """Checks that this version of nbt can read the database.

    Args:
        engine: Engine of the database.
        database: Name of the database, for messages.

    Raises:
        UsageError: The tables were written by a later version of nbt.
    """
    if not sqlalchemy.inspect(engine).has_table(_SCHEMA.name):
        return
    with engine.connect() as connection:
        newest = connection.execute(sqlalchemy.select(_SCHEMA).order_by(_SCHEMA.c.version.desc())).first()
    if newest is not None and newest.version > SCHEMA_VERSION:
        raise UsageError(
            f"{database} was written by nbt {newest.written_by} with schema {newest.version}; nbt {__version__} reads "
            f"up to schema {SCHEMA_VERSION}: install nbt {newest.written_by}, or give another database with --storage"
        )


def write_trials(
    connection: sqlalchemy.Connection, study: str, trials: Sequence[FrozenTrial], first_epochs: Mapping[int, int]
) -> None:
    """Writes changed trials to the tables of nbt.

    Args:
        connection: Connection to the database, in a transaction.
        study: Name of the study.
        trials: All trials of the study, in the order of their numbers.
        first_epochs: Number of each changed trial -> the first epoch of its learning curve that changed.
    """
    keys, rows, epochs = [], [], []
    for number, first_epoch in first_epochs.items():
        attributes = dict(trials[number].user_attrs)
        progress = attributes.pop(codec.PROGRESS, {"trained": 0, "curve": ()})
        key = {"study": study, "number": number}
        keys.append({"of_study": study, "of_number": number, "first_epoch": first_epoch})
        system_attributes = codec.to_json(trials[number].system_attrs)
        rows.append(
            key
            | {"attributes": attributes, "system_attributes": system_attributes, "trained": int(progress["trained"])}
        )
        epochs += [
            key | {name: codec.to_json(getattr(result, name)) for name in _CURVE_FIELDS}
            for result in progress["curve"]
            if result.epoch >= first_epoch
        ]
    connection.execute(_DELETE_TRIAL, keys)
    connection.execute(_DELETE_EPOCHS, keys)
    connection.execute(sqlalchemy.insert(_TRIALS), rows)
    if epochs:
        connection.execute(sqlalchemy.insert(_EPOCHS), epochs)


def read_trials(study: optuna.Study, engine: sqlalchemy.Engine) -> list[FrozenTrial]:
    """Returns the trials of a stored study in the order of their numbers.

    The user attributes of each trial hold the stored ones and, as `codec.PROGRESS`, the number of trained epochs
    ("trained") and the learning curve as a tuple of `EpochResult` ("curve"). The value of a full-length trial is the
    score after the last epoch; version 0.1 stored that of the best epoch. Nothing is written.

    Args:
        study: The study, loaded from the database.
        engine: Engine of the database.
    """
    name, metric = study.study_name, codec.metric_of(study.user_attrs)
    has_tables = sqlalchemy.inspect(engine).has_table(_TRIALS.name)
    with engine.connect() as connection:
        # Optuna's tables are read first: the state of a trial is written after its last epoch.
        trials = read_optuna_trials(connection, name)
        known = _read_states(connection, name, trials, metric) if has_tables else set[int]()
    for trial in trials:
        if trial.number not in known:
            _decode_curve(trial, metric)
    return trials


def _read_states(connection: sqlalchemy.Connection, study: str, trials: Sequence[FrozenTrial], metric: str) -> set[int]:
    """Adds the attributes and the learning curves of the tables to trials; returns the numbers of those they have."""
    curves: dict[int, list[EpochResult]] = defaultdict(list)
    columns = [_EPOCHS.c[name] for name in ("number", *_CURVE_FIELDS)]
    query = sqlalchemy.select(*columns).where(_EPOCHS.c.study == study).order_by(_EPOCHS.c.number, _EPOCHS.c.epoch)
    for number, *values in connection.execute(query, execution_options=IN_PARTS):
        curves[number].append(EpochResult.from_dict(dict(zip(_CURVE_FIELDS, values, strict=True))))
    known = set()
    rows = sqlalchemy.select(_TRIALS).where(_TRIALS.c.study == study)
    for row in connection.execute(rows, execution_options=IN_PARTS):
        if row.number < len(trials):
            _set_state(trials[row.number], row, tuple(curves.pop(row.number, ())), metric)
            known.add(row.number)
    return known


def write_bytes(engine: sqlalchemy.Engine, study: str, key: str, content: bytes) -> None:
    """Writes the predictions of a run or the contents of a study, in place of earlier ones.

    Args:
        engine: Engine of the database.
        study: Name of the study.
        key: Key of the run, see `nbt.tuning.storage.codec.final_key` and `test_key`, or `codec.CONTENTS`.
        content: `Predictions.to_bytes()` or `Task.contents`.
    """
    row = {"study": study, "run": key}
    with engine.begin() as connection:
        connection.execute(sqlalchemy.delete(_PREDICTIONS).filter_by(**row))
        connection.execute(sqlalchemy.insert(_PREDICTIONS), {**row, "predictions": content})


def read_bytes(engine: sqlalchemy.Engine, study: str, key: str) -> bytes | None:
    """Returns the content of `write_bytes`; None if there is none, as in a database of an earlier version."""
    if not sqlalchemy.inspect(engine).has_table(_PREDICTIONS.name):
        return None
    query = sqlalchemy.select(_PREDICTIONS.c.predictions).filter_by(study=study, run=key)
    with engine.connect() as connection:
        content: bytes | None = connection.execute(query).scalar()
    return content


def in_memory_study(name: str, trials: Sequence[FrozenTrial] = ()) -> optuna.Study:
    """Returns a study in memory with the given trials."""
    study = optuna.create_study(study_name=name, direction="maximize")
    study.add_trials(trials)
    return study


def _set_state(trial: FrozenTrial, row: sqlalchemy.Row[Any], curve: tuple[EpochResult, ...], metric: str) -> None:
    """Gives a trial the attributes and the learning curve of its rows."""
    # Other types than a mapping are damaged; `nbt.tuning.storage.reader.read_trial` reports damaged settings.
    attributes = row.attributes if isinstance(row.attributes, dict) else {codec.SETTINGS: row.attributes}
    trial.user_attrs = {**attributes, codec.PROGRESS: {"trained": row.trained, "curve": curve}}
    trial.system_attrs = row.system_attributes
    trial.intermediate_values = {result.epoch: codec.intermediate_value(result, metric) for result in curve}
    _set_value(trial, curve, metric)


def _decode_curve(trial: FrozenTrial, metric: str) -> None:
    """Decodes the learning curve of a trial of version 0.1; changes nothing if it is damaged."""
    with suppress(KeyError, TypeError, ValueError):
        progress = trial.user_attrs[codec.PROGRESS]
        curve = codec.decode_curve(progress["curve"])
        trial.user_attrs = {**trial.user_attrs, codec.PROGRESS: {**progress, "curve": curve}}
        _set_value(trial, curve, metric)


def _set_value(trial: FrozenTrial, curve: Sequence[EpochResult], metric: str) -> None:
    """Sets the value of a full-length trial to that of its learning curve."""
    value = last_score(curve, metric)
    if trial.state is TrialState.COMPLETE and value is not None:
        trial.value = value
