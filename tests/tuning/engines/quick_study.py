"""`nbt` for tests that kill it: trials write a checkpoint per epoch, and workers leave their process IDs in a folder.

python -m tests.tuning.engines.quick_study FOLDER search --dataset ...
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.worker import TrialRunner

RUNNER = "tests.tuning.engines.quick_study:QuickRunner"
FOLDER = "NBT_TEST_WORKERS"


class QuickRunner(TrialRunner):
    def __init__(self, task: Any, **options: Any) -> None:
        super().__init__(task, **options)
        from nbt.training import run_trial as trial
        from nbt.training.fine_tune import fine_tune

        trial.fine_tune = functools.partial(fine_tune, checkpoint_seconds=0.0)  # type: ignore[assignment]

    def run(self, spec: TrialSpec, on_epoch: Callable[[EpochResult], str | None]) -> TrialOutcome:
        folder = Path(os.environ[FOLDER])
        (folder / str(os.getpid())).touch()
        is_paused = spec.key.startswith("trial-") and int(spec.key[6:]) >= first_paused(folder)
        restored = _epochs_in_checkpoint(spec.checkpoint)

        def report_epoch(result: EpochResult) -> str | None:
            reason = on_epoch(result)
            if is_paused and result.epoch >= 3 and result.epoch > restored:
                threading.Event().wait()
            return reason

        return super().run(spec, report_epoch)


def _epochs_in_checkpoint(path: Path | None) -> int:
    """Returns the number of epochs that a trial continues from, which it may report again."""
    import torch

    return 0 if path is None or not path.exists() else len(torch.load(path, weights_only=True)["curve"])


def first_paused(folder: Path) -> int:
    return int((folder / "hold").read_text())


def main() -> None:
    os.environ[FOLDER] = sys.argv.pop(1)
    from nbt.cli import main as run_nbt
    from nbt.tuning.engines.local import LocalEngine
    from nbt.tuning.engines.ray.engine import RayEngine

    for engine in (LocalEngine, RayEngine):
        engine.__init__.__kwdefaults__["runner"] = RUNNER  # type: ignore[misc]
    # The limit withholds the first checkpoint of some workers, and their trials would repeat an epoch.
    RayEngine.__init__.__kwdefaults__["checkpoint_bytes_per_second"] = math.inf  # type: ignore[misc]
    run_nbt()


if __name__ == "__main__":
    main()
