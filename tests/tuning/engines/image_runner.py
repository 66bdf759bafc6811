"""A runner that reports how its process holds the images of the task."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nbt.task.task import Task
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec

RUNNER = "tests.tuning.engines.image_runner:ImageRunner"


class ImageRunner:
    device = "cpu"

    def __init__(
        self, task: Task, *, slot: int, workers: int, device: str | None, cache_bytes: int | None, shared_folder: Path
    ) -> None:
        self.array = task.images.array

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        on_epoch(EpochResult(1, 1.0, 1.0, 0.5, 0.01))
        assert isinstance(self.array, np.memmap)
        facts = {
            "pid": os.getpid(),
            "file": str(self.array.filename),
            "sum": int(self.array.sum()),
            # Pages of the file, which all processes share, in the list of this process's memory.
            "mapped": str(self.array.filename) in Path("/proc/self/maps").read_text(),
            "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")},
        }
        return TrialOutcome(facts=facts)

    def close(self) -> None: ...
