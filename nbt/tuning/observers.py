"""A group of study observers; an observer that raises does not stop the search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec

from nbt.tuning.storage.records import StudyObserver

_log = logging.getLogger("nbt")

_Arguments = ParamSpec("_Arguments")


def _forwarded(
    event: Callable[Concatenate[StudyObserver, _Arguments], None],
) -> Callable[Concatenate[ObserverGroup, _Arguments], None]:
    """Returns the method of `ObserverGroup` that forwards an event to its observers."""

    def forward(group: ObserverGroup, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        for observer in group.observers:
            try:
                getattr(observer, event.__name__)(*arguments, **named)
            except Exception as error:  # a failing display or tracking server must not fail a trial
                group.log_failure(observer, event.__name__, error)

    return forward


class ObserverGroup(StudyObserver):
    """Forwards every event to its observers.

    The first exception of an observer is logged; the observer still receives later events.

    Args:
        observers: The observers.
    """

    def __init__(self, observers: Sequence[StudyObserver] = ()) -> None:
        self.observers = tuple(observers)
        self._failed: set[int] = set()

    study_started = _forwarded(StudyObserver.study_started)
    trial_started = _forwarded(StudyObserver.trial_started)
    trial_placed = _forwarded(StudyObserver.trial_placed)
    epoch_finished = _forwarded(StudyObserver.epoch_finished)
    trial_finished = _forwarded(StudyObserver.trial_finished)
    finals_started = _forwarded(StudyObserver.finals_started)
    final_run_finished = _forwarded(StudyObserver.final_run_finished)
    job_estimated = _forwarded(StudyObserver.job_estimated)
    study_finished = _forwarded(StudyObserver.study_finished)

    def log_failure(self, observer: StudyObserver, event: str, error: Exception) -> None:
        """Logs the first exception of an observer."""
        if id(observer) not in self._failed:
            self._failed.add(id(observer))
            cause = f"{type(error).__name__}: {error}"
            _log.warning("%s failed at %s (%s); the search continues", type(observer).__name__, event, cause)
