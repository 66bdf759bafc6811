"""The write access of a driver to the database of its study."""

from __future__ import annotations

import copy
import threading
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nbt.errors import NbtError
from nbt.tuning.storage import codec
from nbt.tuning.storage.database import close, convert_errors
from nbt.tuning.storage.records import INTERRUPTED
from nbt.tuning.storage.trial_tables import in_memory_study, read_trials, write_trials

FLUSH_SECONDS = 0.5
"""Longest time in seconds until a started trial or an epoch is in the database."""


class StudyWriter:
    """Keeps the trials of a locked study in memory and writes their changes to the database in batches.

    The changes of all trials are written in one transaction, by a timer after `FLUSH_SECONDS` or by `flush`, whichever
    comes first. A process that is killed before loses the epochs of this time, and the trials that started in it.

    Trials that an earlier driver left unfinished are marked as failed and interrupted; otherwise the sampler would
    treat them as running.

    Args:
        stored: The study, loaded from the database.
        storage: The database.

    Attributes:
        study: The study in memory, with all trials.
        flush_seconds: Longest time in seconds until a change is written; 0 writes every change at once.
    """

    def __init__(self, stored: optuna.Study, storage: optuna.storages.RDBStorage) -> None:
        self._stored, self._storage = stored, storage
        self.flush_seconds = FLUSH_SECONDS
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._error: NbtError | None = None
        for _ in stored.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            stored.ask()  # only running trials can be ended
        trials = read_trials(stored, storage.engine)
        self._unfinished = {trial.number for trial in trials if not trial.state.is_finished()}
        self._n_stored = len(trials)
        self._first_epochs = dict.fromkeys(sorted(self._unfinished), 0)
        self.study = in_memory_study(
            stored.study_name, [_interrupted(trial) if trial.number in self._unfinished else trial for trial in trials]
        )
        self.flush()

    def convert_errors(self) -> AbstractContextManager[None]:
        """Returns a context that converts exceptions of the database to NbtError."""
        return convert_errors(self._storage.url)

    def attributes(self) -> dict[str, Any]:
        """Returns the attributes of the study from the database, where another driver may write its lease."""
        with self.convert_errors():
            return self._stored.user_attrs

    def put(self, name: str, value: Any) -> None:
        """Stores an attribute of the study at once."""
        with self._lock, self.convert_errors():
            self._stored.set_user_attr(name, value)

    def trial_changed(self, number: int, first_epoch: int) -> None:
        """Schedules the writing of a trial.

        Args:
            number: Number of the trial in memory.
            first_epoch: First epoch of its learning curve that changed.

        Raises:
            NbtError: An earlier change could not be written.
        """
        with self._lock:
            self._first_epochs[number] = min(first_epoch, self._first_epochs.get(number, first_epoch))
            if self._error is not None:
                raise self._error
            if self.flush_seconds <= 0:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(self.flush_seconds, self._flush_in_background)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Writes all changes now.

        Raises:
            NbtError: The database fails; the changes are kept and written by the next call.
        """
        with self._lock, self.convert_errors():
            self._stop_timer()
            if not self._first_epochs:
                return
            trials = self.study.get_trials(deepcopy=False)
            while self._n_stored <= max(self._first_epochs):
                self._stored.add_trial(_running(trials[self._n_stored]))
                self._unfinished.add(self._n_stored)
                self._n_stored += 1
            write_trials(self._storage.engine, self._stored.study_name, trials, self._first_epochs)
            for number in sorted(self._unfinished & self._first_epochs.keys()):
                if trials[number].state.is_finished():
                    self._store_end(trials[number])
            self._first_epochs.clear()
            self._error = None

    def close(self) -> None:
        """Writes all changes and closes the connections; may be called twice."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes the connections without writing the changes."""
        with self._lock:
            self._stop_timer()
            self._first_epochs.clear()
            close(self._storage)

    def _store_end(self, trial: FrozenTrial) -> None:
        """Stores state and value of a finished trial; its end in memory becomes the stored one."""
        value = trial.value if trial.state is TrialState.COMPLETE else None
        trial.datetime_complete = self._stored.tell(trial.number, value, state=trial.state).datetime_complete
        self._unfinished.remove(trial.number)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_in_background(self) -> None:
        with self._lock:
            try:
                self.flush()
            except NbtError as error:
                self._error = error
            finally:
                self._storage.remove_session()


def _running(trial: FrozenTrial) -> FrozenTrial:
    """Returns a trial as it is added to Optuna's tables: with its parameters and without what nbt's tables hold."""
    added = copy.copy(trial)
    added.state, added.values, added.datetime_complete = TrialState.RUNNING, None, None
    added.user_attrs, added.system_attrs, added.intermediate_values = {}, {}, {}
    return added


def _interrupted(trial: FrozenTrial) -> FrozenTrial:
    """Returns an unfinished trial as a failed one that this or a later session continues."""
    ended = copy.copy(trial)
    ended.state, ended.datetime_complete = TrialState.FAIL, datetime.now()
    ended.user_attrs = {**trial.user_attrs, codec.REASON: INTERRUPTED, codec.INTERRUPTED: True}
    return ended
