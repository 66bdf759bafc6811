"""The protocols between the sources of trials (such as the search controller) and the engines that run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec


class TrialSource(Protocol):
    """Supplies trials and receives their results; implemented by the search controller, the finals and the retraining.

    An engine calls all methods from a single thread of the driver, so implementations need no locks. A source that is
    derived from this class ignores locations and stops no trial, unless it overrides these methods.
    """

    def next_trial(self) -> TrialSpec | None:
        """Returns a trial to start now, or None when there is none at the moment.

        An engine calls this again after every finished trial. It is done when no trial runs and this returns None.
        """
        ...

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Receives the location of a trial, before its first epoch and again when the trial moves.

        Args:
            spec: The trial.
            location: Those of "node", "device" and "gpu_index" that are known.
        """
        return

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Receives one epoch of a trial; returns the reason to stop the trial now, or None to continue."""
        return None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Receives the outcome of a trial. Raising `nbt.errors.NbtError` here ends the engine's run."""
        ...

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Receives a trial that ended without an outcome (Ctrl-C, or requeued after running out of memory)."""
        ...


class Engine(Protocol):
    """Runs the trials of a source on its workers, which are kept until `close`."""

    def start_workers(self) -> None:
        """Starts workers in advance, where that is possible, so that their start does not delay the first trial."""
        ...

    def run(self, source: TrialSource) -> None:
        """Runs trials until the source has none left; KeyboardInterrupt abandons the running ones and is re-raised."""
        ...

    def close(self) -> None:
        """Ends the workers and frees their resources; may be called twice."""
        ...


class ClosingEngine(Engine):
    """An engine that is a context manager; leaving it closes the engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
