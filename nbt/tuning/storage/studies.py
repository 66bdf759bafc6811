"""Storage: studies opened for their driver or for reading. It is the one truth; only a driver writes it.

A study's user attributes hold its configuration, facts, budget, seconds spent, final runs and test results; a trial's
hold its settings, origin, progress (curve, epochs trained), reason and facts. All of it is JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna

from nbt.errors import UsageError, nearest
from nbt.tuning.storage import codec as codec
from nbt.tuning.storage.database import close, connect, convert_errors, resolve_storage, sqlite_file
from nbt.tuning.storage.locks import FileLock, LeaseLock, StudyLock
from nbt.tuning.storage.reader import read_config, study_record, summarise
from nbt.tuning.storage.records import StudyConfig, StudyRecord, StudySummary
from nbt.tuning.storage.study_names import check_same_study, check_study_name, unused_name
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.storage.write_through import WriteThroughStorage

__all__ = ["list_studies", "open_study", "read_study", "resolve_storage", "study_folder"]


def study_folder(name: str, folder: Path | None = None) -> Path:
    """Returns where a driver keeps what can be made again, such as checkpoints: `<folder>/.nbt/<name>`."""
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
) -> StudyStore:
    """Opens a study for its one driver, creating it where it does not exist.

    Args:
        url: Of the storage, see `resolve_storage`.
        config: What defines the study.
        budget: As the user wrote it; a resumed study goes on to this one.
        pruner: Name of the pruner.
        dataset: Facts for the record, see `nbt.task.summary.dataset_summary`.
        notes: What else a reader must know.
        fresh: Start a new study, under the first free of NAME, NAME-2, NAME-3 ...

    Returns:
        The study; its `config.name` is the name it got.

    Raises:
        UsageError: The name cannot be one, or the study exists with other inputs.
        NbtError: The database cannot be used, or another driver has the study.
    """
    check_study_name(config.name)
    storage = connect(url)
    try:
        with convert_errors(url):
            if fresh:
                taken = [study.study_name for study in storage.get_all_studies()]
                config = dataclasses.replace(config, name=unused_name(config.name, taken))
            _check_inputs(storage, config)
            study, lock = _lock_and_load(storage, config)
            write_through = WriteThroughStorage(storage, study._study_id)
            study = optuna.load_study(study_name=config.name, storage=write_through)
            store = StudyStore(study, config, write_through, lock)
        facts = {codec.CONFIG: dataclasses.asdict(config), codec.DATASET: dataset, codec.NOTES: notes}
        _write_facts(store, {**facts, codec.BUDGET: budget, codec.PRUNER: pruner})
    except BaseException:
        close(storage)
        raise
    return store


def read_study(url: str, name: str) -> StudyRecord:
    """Returns a study as plain data, whether or not a driver works on it.

    Raises:
        UsageError: There is no such study; the nearest names are given.
        NbtError: The database cannot be used, or the study is damaged.
    """
    _check_exists(url, name)
    storage = connect(url)
    try:
        with convert_errors(url):
            known = {study.study_name: study for study in storage.get_all_studies()}
            if name not in known or codec.CONFIG not in known[name].user_attrs:
                raise UsageError(f"unknown study {name!r}; {_suggest_study(name, known)}")
            return study_record(optuna.load_study(study_name=name, storage=storage))
    finally:
        close(storage)


def list_studies(url: str) -> list[StudySummary]:
    """Returns the studies of a storage, newest first; none where the database does not exist.

    Raises:
        NbtError: The database cannot be used.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return []
    storage = connect(url)
    try:
        with convert_errors(url):
            summaries = [
                summarise(study.study_name, study.user_attrs, storage.get_all_trials(study._study_id, deepcopy=False))
                for study in storage.get_all_studies()
            ]
    finally:
        close(storage)
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(filter(None, summaries), key=lambda summary: summary.created or oldest, reverse=True)


def _check_inputs(storage: optuna.storages.RDBStorage, config: StudyConfig) -> None:
    """Refuses a study of that name with other inputs, before anything is written."""
    found = next((study for study in storage.get_all_studies() if study.study_name == config.name), None)
    if found is None:
        return
    stored = read_config(config.name, found.user_attrs)
    if stored is not None:
        check_same_study(stored, config)
    elif storage.get_n_trials(found._study_id):
        raise UsageError(f"study {config.name} in this storage was not made by nbt: give another name with --study")


def _lock_and_load(storage: optuna.storages.RDBStorage, config: StudyConfig) -> tuple[optuna.Study, StudyLock]:
    """Locks before it creates where the database is a file; a lease needs the study to exist."""
    file = sqlite_file(storage.url)
    lock = None if file is None else FileLock(file.with_name(f"{file.name}.{config.name}.lock"), config.name)
    try:
        study = optuna.create_study(study_name=config.name, storage=storage, direction="maximize", load_if_exists=True)
        return study, lock or _acquire_lease(study, storage.url)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _acquire_lease(study: optuna.Study, url: str) -> LeaseLock:
    def read() -> Any:
        with convert_errors(url):
            return study.user_attrs.get(codec.LEASE)

    def write(holder: Mapping[str, Any] | None) -> None:
        with convert_errors(url):
            study.set_user_attr(codec.LEASE, holder)

    return LeaseLock(study.study_name, read, write)


def _write_facts(store: StudyStore, facts: Mapping[str, Any]) -> None:
    """Writes what is new about a study."""
    try:
        stored = store.attributes()
        if codec.CREATED not in stored:
            store.put(codec.CREATED, datetime.now(UTC).isoformat())
        for name, value in facts.items():
            if stored.get(name) != codec.to_json(value):
                store.put(name, value)
    except BaseException:
        store.close()
        raise


def _check_exists(url: str, name: str) -> None:
    """Refuses to read from a database that does not exist: opening it would make it."""
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise UsageError(f"unknown study {name!r}; there are no studies in {file} yet")


def _suggest_study(name: str, known: Mapping[str, Any]) -> str:
    return nearest(name, known) if known else "there are no studies in this storage yet"
