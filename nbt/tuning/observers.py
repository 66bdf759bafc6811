"""ObserverGroup: one that fans out to many, and lets none of them stop a search."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.storage.records import FinalRun, StudyObserver, StudyRecord, TrialRecord

_log = logging.getLogger("nbt")


class ObserverGroup(StudyObserver):
    """Passes everything on. An observer that raises is logged once, and goes on being told."""

    def __init__(self, observers: Sequence[StudyObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._failed: set[int] = set()

    def _notify(self, event: str, *facts: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, event)(*facts)
            except Exception as error:  # a display or a tracking server must not cost a trial
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    name = type(observer).__name__
                    _log.warning(
                        "%s failed at %s (%s: %s); the search goes on", name, event, type(error).__name__, error
                    )

    def study_started(self, record: StudyRecord) -> None:
        """The study was opened or resumed."""
        self._notify("study_started", record)

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """A trial was given to a worker."""
        self._notify("trial_started", number, settings, origin)

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        """A trial runs on a worker."""
        self._notify("trial_placed", number, location)

    def epoch_finished(self, number: int, result: EpochResult, epochs_spent: int) -> None:
        """A trial finished an epoch."""
        self._notify("epoch_finished", number, result, epochs_spent)

    def trial_finished(self, trial: TrialRecord) -> None:
        """A trial is complete, pruned or failed."""
        self._notify("trial_finished", trial)

    def finals_started(self, runs: int) -> None:
        """The finals begin."""
        self._notify("finals_started", runs)

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """One seed of one candidate is done."""
        self._notify("final_run_finished", candidate, run)

    def study_finished(self, record: StudyRecord) -> None:
        """Everything is done and stored, or the search was interrupted."""
        self._notify("study_finished", record)
