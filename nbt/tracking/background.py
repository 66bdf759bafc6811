"""An observer that is called in a thread of its own, so that a slow server does not delay the search."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from nbt.tracking.study_tracker import Tracker
from nbt.tuning.observers import ObserverGroup
from nbt.tuning.storage.records import FinalRun, StudyObserver, StudyRecord, TrialRecord

_log = logging.getLogger("nbt")

FINAL_SECONDS = 60.0
"""Longest time in seconds that the end of a search waits for the observer."""


class BackgroundObserver(StudyObserver):
    """Passes the notifications that a tracker needs to it, in their order, without waiting for it.

    The end of the study waits for the tracker, at most `final_seconds`.

    Args:
        tracker: Writer of the runs.
        final_seconds: Longest wait at the end in seconds.
    """

    def __init__(self, tracker: Tracker, *, final_seconds: float = FINAL_SECONDS) -> None:
        self._tracker, self._observer, self._final_seconds = tracker, ObserverGroup([tracker]), final_seconds
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="nbt tracking", daemon=True)

    def study_started(self, record: StudyRecord) -> None:
        """Starts the thread."""
        self._calls.put(partial(self._observer.study_started, record))
        self._thread.start()

    def trial_finished(self, trial: TrialRecord) -> None:
        """Passes on a trial."""
        self._calls.put(partial(self._observer.trial_finished, trial))

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Passes on a final run."""
        self._calls.put(partial(self._observer.final_run_finished, candidate, run))

    def study_finished(self, record: StudyRecord) -> None:
        """Passes on the whole study, and waits until it is written."""
        self._calls.put(partial(self._observer.study_finished, record))
        self._calls.put(None)
        if self._thread.ident is None:  # the search failed before its first trial
            self._thread.start()
        self._thread.join(self._final_seconds)
        if self._thread.is_alive():
            _log.warning(
                "MLflow has not taken all runs within %g seconds after the search; to write the others: %s",
                self._final_seconds,
                self._tracker.sync_command(record),
            )

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
