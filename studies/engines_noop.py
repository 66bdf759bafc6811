"""Part of `bench_engines.py`: a runner that trains nothing. Workers import this module, so it has few imports."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec

RUNNER = "engines_noop:NoopRunner"


@dataclass(frozen=True)
class NoopTask:
    """Replaces a task.

    Attributes:
        gates: Folder; a trial whose key is "WAVE NUMBER" waits after its first epoch until the file WAVE exists in it.
        checkpoint_bytes: Size of the checkpoint that is written per epoch if the trial has one, in bytes.
    """

    gates: Path
    checkpoint_bytes: int = 0


class NoopRunner:
    """Reports epochs as fast as the driver accepts them."""

    def __init__(self, task: NoopTask, **unused: object) -> None:
        self._task = task
        self.device = "cpu"

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        """Reports the epochs of a trial without training."""
        wave, gated, _ = spec.key.partition(" ")
        curve = []
        for epoch in range(1, spec.settings.epochs + 1):
            curve.append(EpochResult(epoch, 1.0, 1.0, 0.5, 0.0))
            if spec.checkpoint is not None:
                spec.checkpoint.unlink(missing_ok=True)  # a new file, as with a real trial
                spec.checkpoint.write_bytes(bytes(self._task.checkpoint_bytes))
            reason = on_epoch(curve[-1])
            if reason is not None:
                return TrialOutcome(curve=tuple(curve), stopped=reason)
            while gated and epoch == 1 and not (self._task.gates / wave).exists():
                time.sleep(0.1)
        return TrialOutcome(curve=tuple(curve))

    def close(self) -> None:
        """Does nothing: there is nothing to free."""
