"""Watched: epochs of any source of jobs, shown to whoever waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbt.pipeline.loading import Progress

if TYPE_CHECKING:
    from nbt.search.engines.base import JobSource
    from nbt.training.results import EpochResult, TrialJob


class Watched:
    """A job source that tells a progress callback of every epoch."""

    def __init__(self, source: JobSource, progress: Progress | None) -> None:
        self._source, self._progress = source, progress
        self.next_job = source.next_job
        self.on_place = source.on_place
        self.on_done = source.on_done
        self.on_abandoned = source.on_abandoned

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Passes an epoch on."""
        if self._progress is not None:
            self._progress(f"training: {job.key}", result.epoch, job.settings.epochs)
        return self._source.on_epoch(job, result)
