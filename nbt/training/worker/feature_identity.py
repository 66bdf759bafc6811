"""The identity of the frozen units' features: everything but the key of a view that their values depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nbt.task.task import Task
from nbt.training.checkpoint import TRAINING_VERSION

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def features_identity(task: Task, pool: npt.NDArray[np.int64], n_augmented: int) -> str:
    """Returns a hash of what the features of a task depend on, apart from weights, frozen depth, policy and view.

    The number of threads and the version of PyTorch belong to it, because they change the order of sums. So does the
    start of the machine: features that were not written to the disk before the power failed are not used afterwards.

    Args:
        task: The task, whose images are in a file of the cache, which is named by their content, or of this search.
        pool: Indices of the images, (n,), in the order of their rows.
        n_augmented: Number of images that have augmented views.
    """
    assert task.images.path is not None, "workers share a file of images"
    values = {
        "images": str(task.images.path),
        "pool": hashlib.sha256(np.ascontiguousarray(pool, dtype=np.int64).tobytes()).hexdigest(),
        "augmented": n_augmented,
        "backbone": task.backbone.text,
        "normalisation": [task.mean, task.std],
        "mirror": task.mirror,
        "version": TRAINING_VERSION,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": _boot(),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]


def _boot() -> str:
    """Returns what identifies this start of the machine; the name of the machine where the system does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()
