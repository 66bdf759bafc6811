"""The write access of a driver to the database of its study."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.tuning.storage import codec
from nbt.tuning.storage.database import close
from nbt.tuning.storage.locks import StudyLock
from nbt.tuning.storage.optuna_tables import OptunaTables
from nbt.tuning.storage.outage import OutageRetry
from nbt.tuning.storage.records import INTERRUPTED
from nbt.tuning.storage.trial_tables import in_memory_study, read_trials, write_bytes, write_trials

FLUSH_SECONDS = 0.5
"""Longest time in seconds until a started trial or an epoch is in the database."""


class StudyWriter:
    """Keeps the trials of a locked study in memory and writes their changes to the database in batches.

    A timer writes started trials and epochs of all trials in one transaction, at most `flush_seconds` after the first
    change. A process that is killed before loses the epochs of this time, and the trials that started in it.

    Trials that an earlier driver left unfinished are marked as failed and interrupted; otherwise the sampler would
    treat them as running. In memory, interrupted trials have no rungs, so that Optuna's pruners compare a trial with
    others and not with its own earlier attempts.

    Args:
        stored: The study, loaded from the database.
        storage: The database.
        lock: The acquired lock of the study; every method that writes raises NbtError if another driver has taken it.

    Attributes:
        study: The study in memory, with all trials.
        flush_seconds: Longest time in seconds until a change is written; 0 writes every change at once.
    """

    def __init__(self, stored: optuna.Study, storage: optuna.storages.RDBStorage, lock: StudyLock) -> None:
        self._stored, self._storage, self._lock = stored, storage, lock
        self._retry = OutageRetry(str(storage.url))
        self.flush_seconds = FLUSH_SECONDS
        # The first lock is held during writing, the second one, never for long, by changes of the fields below it.
        self._write_lock, self._change_lock = threading.RLock(), threading.Lock()
        self._first_epochs: dict[int, int] = {}  # number of each changed trial -> first epoch to be written
        self._timer: threading.Timer | None = None
        self._error: NbtError | None = None
        trials = read_trials(stored, storage.engine)
        if waiting := [trial for trial in trials if trial.state is TrialState.WAITING]:
            for _ in waiting:
                stored.ask()  # only running trials can be ended
            trials = read_trials(stored, storage.engine)
        self._optuna_tables = OptunaTables(storage.engine, stored.study_name)
        self._n_stored = len(trials)
        self._unfinished = {trial.number for trial in trials if not trial.state.is_finished()}
        trials = [_interrupted(trial) if trial.number in self._unfinished else trial for trial in trials]
        self.study = in_memory_study(stored.study_name, [_without_rungs(trial) for trial in trials])
        self._write(dict.fromkeys(self._unfinished, 0))

    @property
    def url(self) -> str:
        """URL of the database."""
        return str(self._storage.url)

    def attributes(self) -> dict[str, Any]:
        """Returns the attributes of the study from the database, where another driver may write its lease."""
        return self._retry.run(lambda: self._stored.user_attrs)

    def put(self, name: str, value: Any) -> None:
        """Stores an attribute of the study at once."""
        self._execute(lambda: self._stored.set_user_attr(name, value))

    def put_bytes(self, key: str, content: bytes) -> None:
        """Stores bytes at once; see `nbt.tuning.storage.trial_tables.write_bytes`."""
        self._execute(lambda: write_bytes(self._storage.engine, self._stored.study_name, key, content))

    def change_trial(self, number: int, first_epoch: int) -> None:
        """Schedules the writing of a trial.

        Args:
            number: Number of the trial in memory.
            first_epoch: First epoch of its learning curve that changed.

        Raises:
            NbtError: An earlier change could not be written.
        """
        with self._change_lock:
            self._first_epochs[number] = min(first_epoch, self._first_epochs.get(number, first_epoch))
            if self._error is not None:
                raise self._error
            if self._timer is None and self.flush_seconds > 0:
                self._timer = threading.Timer(self.flush_seconds, self._flush_in_background)
                self._timer.daemon = True
                self._timer.start()
        if self.flush_seconds <= 0:
            self.flush()

    def end_trial(self, number: int) -> None:
        """Writes a finished trial at once.

        Raises:
            NbtError: The database fails; the trial is written by the next call of `flush`.
        """
        with self._change_lock:
            self._first_epochs.pop(number, None)
        self._write({number: 0})

    def flush(self) -> None:
        """Writes all changes now.

        Raises:
            NbtError: The database fails; the changes are kept and written by the next call.
        """
        self._write(self._pop_changes())

    def close(self) -> None:
        """Writes all changes, releases the lock and closes the connections."""
        with ExitStack() as stack:
            stack.callback(close, self._storage)
            stack.callback(self._lock.release)
            self.flush()

    def _pop_changes(self) -> dict[int, int]:
        """Removes and returns all scheduled changes."""
        with self._change_lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            changes, self._first_epochs = self._first_epochs, {}
            return changes

    def _write(self, first_epochs: dict[int, int]) -> None:
        """Writes trials; `first_epochs` is that of `nbt.tuning.storage.trial_tables.write_trials`."""
        if not first_epochs:
            return
        try:
            self._execute(lambda: self._write_trials(first_epochs))
            self._error = None
        except BaseException:
            with self._change_lock:
                for number, epoch in first_epochs.items():
                    self._first_epochs[number] = min(epoch, self._first_epochs.get(number, epoch))
            raise

    def _execute(self, operation: Callable[[], None]) -> None:
        """Runs a write if this driver still holds the study; see `OutageRetry.run`."""

        def checked() -> None:
            self._lock.check()
            with self._write_lock:
                operation()

        self._retry.run(checked)

    def _write_trials(self, first_epochs: dict[int, int]) -> None:
        """Writes trials in one transaction."""
        trials = self.study.get_trials(deepcopy=False)
        new = trials[self._n_stored : max(first_epochs) + 1]
        unfinished = self._unfinished | {trial.number for trial in new}
        ended = {number for number in unfinished & first_epochs.keys() if trials[number].state.is_finished()}
        with self._storage.engine.begin() as connection:
            self._optuna_tables.add_running(connection, new)
            write_trials(connection, self._stored.study_name, trials, first_epochs)
            self._optuna_tables.end(connection, [trials[number] for number in sorted(ended)])
        self._n_stored, self._unfinished = self._n_stored + len(new), unfinished - ended

    def _flush_in_background(self) -> None:
        try:
            self.flush()
        except NbtError as error:
            self._error = error
        finally:
            self._storage.remove_session()  # Optuna keeps one per thread


def _interrupted(trial: FrozenTrial) -> FrozenTrial:
    """Returns an unfinished trial as a failed one that this or a later session continues."""
    ended = copy.copy(trial)
    ended.state, ended.datetime_complete = TrialState.FAIL, datetime.now()
    ended.user_attrs = {**trial.user_attrs, codec.REASON: INTERRUPTED, codec.INTERRUPTED: True}
    return ended


def _without_rungs(trial: FrozenTrial) -> FrozenTrial:
    """Returns an interrupted trial without the rungs of Optuna's pruners, and any other trial unchanged."""
    if not trial.user_attrs.get(codec.INTERRUPTED):
        return trial
    kept = copy.copy(trial)
    kept.system_attrs = {name: value for name, value in trial.system_attrs.items() if "rung" not in name}
    return kept
