"""ProgressTrialSource: a trial source that reports every epoch to a progress callback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbt.progress import Progress

if TYPE_CHECKING:
    from nbt.training.results import EpochResult, TrialSpec
    from nbt.tuning.engines.base import TrialSource


_ACTIVITIES = {
    "retrain-recommended": "retraining with the recommended settings",
    "retrain-baseline": "retraining with the default recipe",
    "train-on-all": "training on the training and validation images",
}


class ProgressTrialSource:
    """Wraps a trial source and reports every epoch to a progress callback.

    Args:
        source: The wrapped trial source.
        progress: Progress callback; None reports nothing.
    """

    def __init__(self, source: TrialSource, progress: Progress | None) -> None:
        self._source, self._progress = source, progress
        self.next_trial = source.next_trial
        self.on_placed = source.on_placed
        self.on_done = source.on_done
        self.on_abandoned = source.on_abandoned

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Reports the epoch, then returns the decision of the wrapped source."""
        if self._progress is not None:
            activity = _ACTIVITIES.get(spec.key, f"training with seed {spec.seed}")
            self._progress(activity, result.epoch, spec.settings.epochs)
        return self._source.on_epoch(spec, result)
