"""Calibration of the time estimate: the duration of an epoch of the default recipe, measured on the workers."""

from __future__ import annotations

import logging
from statistics import median

from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.engines.base import TrialSource

_log = logging.getLogger("nbt")

_EPOCHS = 2  # the first one includes the start of the worker and of its libraries
_FIRST_BATCHES = 2
MAX_WORKERS = 8
"""Largest number of runs at a time."""
# An epoch of this length in seconds hides what every epoch costs whatever its number of images.
_TARGET_SECONDS = 0.3


class Calibration(TrialSource):
    """Trains the default recipe for two epochs on some images of the training and validation part.

    All workers, at most 8, run it at the same time, because they share memory and cores. If an epoch on two batches is
    too short for a measurement, a second round uses more images. Nothing is stored.

    Args:
        train_images: Number of training images of an epoch of a trial.

    Attributes:
        workers: Number of runs at a time.
        epoch_seconds: Duration of an epoch of the default recipe on all images in seconds; None if it could not be
            measured.
    """

    def __init__(self, train_images: int) -> None:
        self._settings = default_recipe(_EPOCHS)
        self._train_images = train_images
        self._images = min(train_images, _FIRST_BATCHES * self._settings.batch_size)
        self._is_first_round = True
        self._pending: int | None = None  # runs of this round that were not handed out; None: as many as run at a time
        self._running = 0
        self._seconds: list[float] = []
        self.workers = 0
        self.epoch_seconds: float | None = None

    def next_trial(self) -> TrialSpec | None:
        """Returns a run for each worker in the first round, and as many in the second."""
        if self._pending == 0 or (self._pending is None and self.workers == MAX_WORKERS):
            return None
        if self._pending is None:
            self.workers += 1
        else:
            self._pending -= 1
        self._running += 1
        key = f"calibration-{self._images}-{self._running}"
        return TrialSpec(key=key, settings=self._settings, max_train_images=self._images)

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Reads the duration of an epoch; the last run of a round decides whether there is another one."""
        self._running -= 1
        if self._pending is None:
            self._pending = 0
        if outcome.error is not None or outcome.diverged:
            _log.debug("calibration of the time estimate: %s", outcome.error or "the loss diverged")
        else:
            self._seconds.append(outcome.curve[-1].seconds)
        if not self._running and self._seconds:
            self._end_round(median(self._seconds))

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Ends the calibration without a result."""
        self._running, self._pending = self._running - 1, 0

    def _end_round(self, seconds: float) -> None:
        self.epoch_seconds = seconds * self._train_images / self._images
        images = min(self._train_images, int(self._images * _TARGET_SECONDS / max(seconds, 1e-6)))
        if self._is_first_round and images > 1.5 * self._images:
            self._images, self._pending, self._seconds = images, self.workers, []
        self._is_first_round = False
