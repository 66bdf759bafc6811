"""The line between the controller and whoever runs trials: both sides hold to these two protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec


class TrialSource(Protocol):
    """Hands out runs and is told how they go: the controller, the finals, the last training.

    An engine calls it from one thread of the driver, so implementations need no locks.
    """

    def next_trial(self) -> TrialSpec | None:
        """Returns a run to start now; None when there is none at the moment.

        An engine asks again after every finished run, and is done when nothing runs and it answers None.
        """
        ...

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        """Is told where a run is, before its first epoch and again where it moves.

        Args:
            spec: The run.
            location: Of node, device and gpu_index what is known.
        """
        ...

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        """Takes one epoch of a run; returns the reason to stop the run now, or None to go on."""
        ...

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Takes the end of a run. Raising `nbt.errors.NbtError` here ends the engine."""
        ...

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Is told that a run was given up without an end (Ctrl-C, or put back after running out of memory)."""
        ...


class Engine(Protocol):
    """Runs the specs of a source until there are none. `close` ends the workers."""

    def run(self, source: TrialSource) -> None:
        """Runs specs until the source has none left; KeyboardInterrupt abandons the running ones and is raised."""
        ...

    def close(self) -> None:
        """Ends the workers and frees what they hold; may be called twice."""
        ...
