"""ProgressTrialSource: a trial source that reports every epoch to a progress callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbt.progress import Progress
from nbt.report.formatting import pluralise

if TYPE_CHECKING:
    from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
    from nbt.tuning.engines.base import TrialSource


_RETRAINING = "retraining "
_ACTIVITIES = {
    "retrain-recommended": f"{_RETRAINING}with the recommended settings",
    "retrain-baseline": f"{_RETRAINING}with the default recipe",
    "train-on-all": "training on the training and validation images",
}


class ProgressTrialSource:
    """Wraps a trial source and reports every epoch to a progress callback, for all runs at a time together.

    Args:
        source: The wrapped trial source.
        progress: Progress callback; None reports nothing.
    """

    def __init__(self, source: TrialSource, progress: Progress | None) -> None:
        self._source, self._progress = source, progress
        self._running: dict[str, tuple[str, int, int]] = {}  # activity, epochs done and epochs in total by run
        self.next_trial = source.next_trial
        self.on_placed = source.on_placed

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Reports the epoch, then returns the decision of the wrapped source."""
        activity = _ACTIVITIES.get(spec.key, f"training with seed {spec.seed}")
        self._running[spec.key] = (activity, result.epoch, spec.settings.epochs)
        if self._progress is not None:
            activities, done, total = zip(*self._running.values(), strict=True)
            self._progress(_joined(activities), sum(done), sum(total))
        return self._source.on_epoch(spec, result)

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Forwards the outcome of a run."""
        self._running.pop(spec.key, None)
        self._source.on_done(spec, outcome)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Forwards a run that the engine returned unfinished."""
        self._running.pop(spec.key, None)
        self._source.on_abandoned(spec)


def _joined(activities: Sequence[str]) -> str:
    """Returns what runs as one text."""
    first, *others = activities
    if len(others) == 1 and all(activity.startswith(_RETRAINING) for activity in activities):
        return f"{first} and {others[0].removeprefix(_RETRAINING)}"
    return f"{first} and {pluralise(len(others), 'other run')}" if others else first
