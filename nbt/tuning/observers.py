"""A group of study observers; an observer that raises does not stop the search."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.storage.records import FinalRun, StudyObserver, StudyRecord, TrialRecord

_log = logging.getLogger("nbt")


class ObserverGroup(StudyObserver):
    """Forwards every event to its observers.

    The first exception of an observer is logged; the observer still receives later events.
    """

    def __init__(self, observers: Sequence[StudyObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._failed: set[int] = set()

    def _notify(self, event: str, *arguments: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, event)(*arguments)
            except Exception as error:  # a failing display or tracking server must not fail a trial
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    name = type(observer).__name__
                    _log.warning(
                        "%s failed at %s (%s: %s); the search continues", name, event, type(error).__name__, error
                    )

    def study_started(self, record: StudyRecord) -> None:
        """Forwards that the study was opened or resumed."""
        self._notify("study_started", record)

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """Forwards that a trial was given to a worker."""
        self._notify("trial_started", number, settings, origin)

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        """Forwards the location of a trial."""
        self._notify("trial_placed", number, location)

    def epoch_finished(self, number: int, result: EpochResult, epochs_spent: int) -> None:
        """Forwards the result of an epoch of a trial."""
        self._notify("epoch_finished", number, result, epochs_spent)

    def trial_finished(self, trial: TrialRecord) -> None:
        """Forwards that a trial is complete, pruned or failed."""
        self._notify("trial_finished", trial)

    def finals_started(self, runs: int) -> None:
        """Forwards that the final runs start."""
        self._notify("finals_started", runs)

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Forwards that a final run has finished."""
        self._notify("final_run_finished", candidate, run)

    def study_finished(self, record: StudyRecord) -> None:
        """Forwards that the study is finished and stored, or was interrupted."""
        self._notify("study_finished", record)
