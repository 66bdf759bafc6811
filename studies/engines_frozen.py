"""Part of `bench_engines.py`: real trials on frozen features, and real checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import nbt
from nbt.seeds import derive_seed
from nbt.task.task import Task
from nbt.training.results import TrialSpec
from nbt.tuning.space.applicability import applicable_space
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space


def frozen_task(shared: Path, image_size: int) -> Task:
    """Returns the task CUB-50 crop with MobileNetV2 of width 0.35."""
    return nbt.load_task(
        "cub",
        backbone="mobilenet_v2(width_mult=0.35)",
        weights=shared / "weights" / "mobilenet_v2_035-imagenet.pth",
        data_dir=shared / "data",
        image_size=image_size,
    )


def frozen_specs(task: Task, count: int, epochs: int) -> list[TrialSpec]:
    """Returns trials with random settings of the default space, in which all units are transferred and frozen."""
    space = applicable_space(Space.load("non_binary"), task)
    space = space.without(["transfer_depth", "frozen_depth"]).with_fixed(frozen_depth=1.0)
    rng = np.random.default_rng(derive_seed(0, "frozen features"))
    settings = [space.settings(sample_params(space, rng), epochs) for _ in range(count)]
    return [TrialSpec(key=f"t{n}", settings=trial_settings, seed=n) for n, trial_settings in enumerate(settings)]


def checkpoint_bytes(backbone: str) -> int:
    """Returns the size of a checkpoint of a trial that trains the whole backbone, in bytes."""
    task = nbt.load_task("digits", backbone=backbone, weights="none", shots=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        trial = nbt.fine_tune(task, nbt.TransferSettings(epochs=2), checkpoint=path, checkpoint_seconds=0.0)
        next(trial)  # the checkpoint of the first epoch is written when the second is requested
        next(trial)
        return path.stat().st_size
