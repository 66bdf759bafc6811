"""The line between the brain and whoever runs trials: both sides hold to these two protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from nbt.training.results import EpochResult, TrialJob, TrialOutcome


class JobSource(Protocol):
    """Hands out runs and is told how they go: the brain, the finals, the last training.

    An engine calls it from one thread of the driver, so implementations need no locks.
    """

    def next_job(self) -> TrialJob | None:
        """Returns a run to start now; None when there is none at the moment.

        An engine asks again after every finished run, and is done when nothing runs and it answers None.
        """
        ...

    def on_place(self, job: TrialJob, place: Mapping[str, Any]) -> None:
        """Is told where a run is, before its first epoch and again where it moves.

        Args:
            job: The run.
            place: Of node, device and gpu_index what is known.
        """
        ...

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Takes one epoch of a run; returns the reason to stop the run now, or None to go on."""
        ...

    def on_done(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Takes the end of a run. Raising `nbt.errors.NbtError` here ends the engine."""
        ...

    def on_abandoned(self, job: TrialJob) -> None:
        """Is told that a run was given up without an end (Ctrl-C, or put back after running out of memory)."""
        ...


class Engine(Protocol):
    """Runs the jobs of a source until there are none. `close` ends the workers."""

    def run(self, source: JobSource) -> None:
        """Runs jobs until the source has none left; KeyboardInterrupt abandons the running ones and is raised."""
        ...

    def close(self) -> None:
        """Ends the workers and frees what they hold; may be called twice."""
        ...
