"""A runner that trains nothing; the key of a trial selects its behaviour, such as "0003 die-once"."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbt.training.metrics import Predictions
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec

PREDICTIONS = Predictions(np.array([0, 1, 1]), np.log([[0.5, 0.5], [0.25, 0.75], [1.0, 1e-9]]), np.arange(7, 10))
RUNNER = "tests.tuning.engines.fake_runner:FakeRunner"


@dataclass(frozen=True)
class FakeTask:
    """Replaces a task: a folder in which runners leave files for one another and for the tests."""

    folder: Path
    setup: str = "works"

    def fail_after_first_worker(self, slot: int) -> None:
        """Fails in all workers but the first, after the first has started."""
        if slot == 0:
            (self.folder / "first").touch()
            return
        while not (self.folder / "first").exists():
            threading.Event().wait(0.01)
        raise RuntimeError("no kernel image")

    def is_first_call(self, name: str) -> bool:
        try:
            (self.folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class _InterruptsInFinaliser:
    """Receives a signal in its finaliser, from which Python drops every exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class FakeRunner:
    def __init__(self, task: FakeTask, *, slot: int, workers: int, device: str | None, cache_bytes: int | None) -> None:
        if task.setup == "fails":
            raise RuntimeError("set-up failed")
        if task.setup == "lacks memory with another" and slot > 0:
            raise MemoryError("out of memory at set-up")
        if task.setup == "fails with another":
            task.fail_after_first_worker(slot)
        self.task = task
        self.device, self.requested_device = device or "cpu", device
        self.trials_run, self.workers = 0, workers
        logging.getLogger("nbt").info("runner %d is ready", slot)

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        self.trials_run += 1
        print("noise on stdout")
        behaviour = spec.key.partition(" ")[2] or "train"
        facts = {
            "pid": os.getpid(),
            "trials_run": self.trials_run,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "temporary": tempfile.gettempdir(),
            "workers_per_device": self.workers,
            "requested_device": self.requested_device,
            **{name: os.environ.get(name) for name in ("RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES")},
        }
        if behaviour == "measured":
            facts |= {"peak_memory_bytes": 10 << 30, "device_memory_bytes": 80 << 30}
        if behaviour == "fail":
            return TrialOutcome(error="ValueError: no", traceback="Traceback ...")
        if behaviour == "oom" or (behaviour == "oom-once" and self.task.is_first_call("oom-once")):
            return TrialOutcome(error="OutOfMemoryError: all of it", out_of_memory=True)
        resumed_after = _epochs_in_checkpoint(spec)
        facts["resumed_after"] = resumed_after
        curve = [_result(epoch) for epoch in range(1, resumed_after + 1)]
        for epoch in range(resumed_after + 1, spec.settings.epochs + 1):
            self._behave(behaviour, epoch)
            curve.append(_result(epoch))
            if spec.checkpoint is not None:
                spec.checkpoint.write_text(str(epoch))
            try:
                reason = on_epoch(curve[-1])
            except Exception as error:  # as run_trial does
                return TrialOutcome(curve=tuple(curve), error=str(error))
            if reason is not None:
                return TrialOutcome(curve=tuple(curve), stopped=reason, facts=facts)
        return TrialOutcome(curve=tuple(curve), facts=facts, predictions=PREDICTIONS if spec.keep_predictions else None)

    def _behave(self, behaviour: str, epoch: int) -> None:
        if behaviour == "wait" and epoch == 4:
            (self.task.folder / f"waiting-{os.getpid()}").touch()
            while not (self.task.folder / "go").exists():
                threading.Event().wait(0.05)
        if epoch != 2:
            return
        if behaviour == "die" or (behaviour.startswith("die-once") and self.task.is_first_call(behaviour)):
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "exit":
            sys.exit(3)
        if behaviour == "interrupt":
            signal.raise_signal(signal.SIGINT)
        if behaviour == "interrupt-in-finaliser":
            _InterruptsInFinaliser()
        if behaviour == "terminate":
            signal.raise_signal(signal.SIGTERM)
        if behaviour == "hang":
            (self.task.folder / f"temporary-{os.getpid()}").write_text(tempfile.gettempdir())
            (self.task.folder / f"hanging-{os.getpid()}").touch()
            threading.Event().wait()

    def close(self) -> None:
        (self.task.folder / f"closed-{os.getpid()}").touch()


def _epochs_in_checkpoint(spec: TrialSpec) -> int:
    """Returns the number of epochs in the trial's checkpoint; 0 without one."""
    return int(spec.checkpoint.read_text()) if spec.checkpoint is not None and spec.checkpoint.exists() else 0


def _result(epoch: int) -> EpochResult:
    return EpochResult(epoch, 1.0 / epoch, 1.0 / epoch, 1.0 - 0.5 / epoch, 0.01)
