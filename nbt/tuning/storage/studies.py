"""Opening, reading and listing of the studies of a storage; only the driver of a study writes to it.

Optuna's tables hold the studies and the parameters, states and values of their trials. The user attributes of a study
hold its configuration, facts, budget, seconds spent, final runs and test results in JSON. The tables of nbt hold the
learning curves and the resumable state of the trials, see `nbt.tuning.storage.trial_tables`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nbt.errors import UsageError, nearest
from nbt.tuning.storage import codec
from nbt.tuning.storage.database import close, connect, connect_to_read, convert_errors, resolve_storage, sqlite_file
from nbt.tuning.storage.locks import FileLock, LeaseLock, StudyLock, lease_message, locked_file_message
from nbt.tuning.storage.prediction_reader import PredictionReader
from nbt.tuning.storage.reader import read_config, study_record, summarise
from nbt.tuning.storage.records import StudyConfig, StudyRecord, StudySummary
from nbt.tuning.storage.study_names import check_same_study, check_study_name, unused_name
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.study_writer import StudyWriter
from nbt.tuning.storage.trial_tables import read_bytes, read_trials

__all__ = [
    "check_not_running",
    "find_study",
    "fresh_name",
    "list_studies",
    "open_study",
    "read_study",
    "resolve_storage",
    "study_folder",
]


def study_folder(name: str, folder: Path | None = None) -> Path:
    """Returns the folder for files that can be created again, such as checkpoints: `<folder>/.nbt/<name>`."""
    return (Path.cwd() if folder is None else folder.resolve()) / ".nbt" / name


def open_study(
    url: str,
    config: StudyConfig,
    *,
    budget: str,
    pruner: str,
    dataset: Mapping[str, Any],
    notes: Sequence[str] = (),
    fresh: bool = False,
    contents: bytes | None = None,
) -> StudyStore:
    """Opens a study for its driver and locks it; creates the study if it does not exist.

    Args:
        url: URL of the storage; see `resolve_storage`.
        config: Configuration of the study.
        budget: Budget as given by the user; it replaces that of a resumed study.
        pruner: Name of the pruner.
        dataset: Facts about the dataset; see `nbt.task.summary.dataset_summary`.
        notes: Further remarks for readers of the study.
        fresh: Whether to start a new study under the first unused name of NAME, NAME-2, NAME-3 ...
        contents: `Task.contents`, stored in order to say what changed if the study is resumed with other images.

    Returns:
        The locked study; `config.name` is its final name.

    Raises:
        UsageError: The name is invalid, or the study exists with other inputs.
        NbtError: The database cannot be used, or another driver holds the study.
    """
    check_study_name(config.name)
    storage = connect(url)
    with ExitStack() as stack, convert_errors(url):
        stack.callback(close, storage)
        if fresh:
            taken = [study.study_name for study in storage.get_all_studies()]
            config = dataclasses.replace(config, name=unused_name(config.name, taken))
        known = _check_inputs(storage, config, contents)
        stored, lock = _lock_and_load(storage, config, stack)
        writer = StudyWriter(stored, storage, lock)
        store = StudyStore(writer.study, config, writer)
        facts = {codec.CONFIG: config.to_dict(), codec.DATASET: dataset, codec.NOTES: notes}
        _write_facts(store, {**facts, codec.BUDGET: budget, codec.PRUNER: pruner})
        if contents is not None and contents != known:
            writer.put_bytes(codec.CONTENTS, contents)
        stack.pop_all()  # the store closes them
    return store


def read_study(url: str, name: str) -> StudyRecord:
    """Returns the record of a study, also while a driver writes to it.

    Args:
        url: URL of the storage; see `resolve_storage`.
        name: Name of the study.

    Raises:
        UsageError: There is no study of this name; the message suggests similar names.
        NbtError: The database cannot be used, or the study is damaged.
    """
    with _open_to_read(url) as storage:
        studies = {} if storage is None else {study.study_name: study for study in storage.get_all_studies()}
        if storage is None or name not in studies or codec.CONFIG not in studies[name].user_attrs:
            place = sqlite_file(url) or "this storage"
            hint = nearest(name, studies) if studies else f"there are no studies in {place} yet"
            raise UsageError(f"unknown study {name!r}; {hint}")
        trials, attributes = _read_trials(storage, name), studies[name].user_attrs
        return study_record(name, trials, attributes, PredictionReader(storage.url, name))


def check_not_running(url: str, name: str) -> None:
    """Checks that no driver searches a study now; a study that does not exist passes.

    Raises:
        UsageError: A driver does; its search writes the report.
        NbtError: The database cannot be used.
    """
    file = sqlite_file(url)
    if file is not None:
        message = locked_file_message(_lock_file(file, name), name)
    else:
        with _open_to_read(url) as storage:
            studies = [] if storage is None else storage.get_all_studies()
            leases = [study.user_attrs.get(codec.LEASE) for study in studies if study.study_name == name]
        message = lease_message(leases[0], name) if leases else None
    if message is not None:
        raise UsageError(f"{message}: its report is written at the end; wait for it, or stop the search first")


def find_study(url: str, name: str) -> StudyRecord | None:
    """Returns the record of a study; None if there is none, or if its stored configuration is damaged.

    Raises:
        UsageError: The name is invalid.
        NbtError: The database cannot be used, or the study is damaged.
    """
    check_study_name(name)
    try:
        return read_study(url, name)
    except UsageError:
        return None


def fresh_name(url: str, name: str) -> str:
    """Returns the name that `open_study` with `fresh` would give a new study now; nothing is written.

    Raises:
        UsageError: The name is invalid.
        NbtError: The database cannot be used.
    """
    check_study_name(name)
    with _open_to_read(url) as storage:
        return unused_name(name, [] if storage is None else [study.study_name for study in storage.get_all_studies()])


def list_studies(url: str) -> list[StudySummary]:
    """Returns the summaries of all studies, newest first; an empty list if the database does not exist.

    Raises:
        NbtError: The database cannot be used.
    """
    with _open_to_read(url) as storage:
        summaries = [
            summarise(study.study_name, study.user_attrs, _read_trials(storage, study.study_name))
            for study in (() if storage is None else storage.get_all_studies())
            if storage is not None and codec.CONFIG in study.user_attrs
        ]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(filter(None, summaries), key=lambda summary: summary.created or oldest, reverse=True)


@contextmanager
def _open_to_read(url: str) -> Iterator[optuna.storages.RDBStorage | None]:
    """Returns a context with the storage; None if the database contains no studies. Nothing is written."""
    storage = connect_to_read(url)
    try:
        with convert_errors(url):
            yield storage
    finally:
        if storage is not None:
            close(storage)


def _read_trials(storage: optuna.storages.RDBStorage, name: str) -> list[FrozenTrial]:
    return read_trials(optuna.load_study(study_name=name, storage=storage), storage.engine)


def _check_inputs(storage: optuna.storages.RDBStorage, config: StudyConfig, contents: bytes | None) -> bytes | None:
    """Returns the stored contents of an existing study.

    Raises:
        UsageError: The study exists with other inputs; nothing was written.
    """
    existing = next((study for study in storage.get_all_studies() if study.study_name == config.name), None)
    if existing is None:
        return None
    stored, known = read_config(config.name, existing.user_attrs), None
    if stored is not None:
        known = read_bytes(storage.engine, config.name, codec.CONTENTS)
        check_same_study(stored, config, known, contents)
    elif optuna.load_study(study_name=config.name, storage=storage).get_trials(deepcopy=False):
        raise UsageError(f"study {config.name} in this storage was not created by nbt: give another name with --study")
    return known


def _lock_and_load(
    storage: optuna.storages.RDBStorage, config: StudyConfig, stack: ExitStack
) -> tuple[optuna.Study, StudyLock]:
    """Creates or loads the study and locks it; `stack` releases the lock.

    A database file is locked before the study is created; a lease is an attribute of an existing study.
    """
    file = sqlite_file(storage.url)
    lock: StudyLock | None = None
    if file is not None:
        lock = FileLock(_lock_file(file, config.name), config.name)
        stack.callback(lock.release)
    study = optuna.create_study(study_name=config.name, storage=storage, direction="maximize", load_if_exists=True)
    if lock is None:
        lock = _acquire_lease(study, storage.url)
        stack.callback(lock.release)
    return study, lock


def _lock_file(database: Path, study: str) -> Path:
    return database.with_name(f"{database.name}.{study}.lock")


def _acquire_lease(study: optuna.Study, url: str) -> LeaseLock:
    def read() -> Any:
        with convert_errors(url):
            return study.user_attrs.get(codec.LEASE)

    def write(holder: Mapping[str, Any] | None) -> None:
        with convert_errors(url):
            study.set_user_attr(codec.LEASE, holder)

    return LeaseLock(study.study_name, read, write)


def _write_facts(store: StudyStore, facts: Mapping[str, Any]) -> None:
    """Writes the new or changed attributes of a study."""
    stored = store.attributes()
    if codec.CREATED not in stored:
        store.put(codec.CREATED, datetime.now(UTC).isoformat())
    for name, value in facts.items():
        if stored.get(name) != codec.to_json(value):
            store.put(name, value)
