"""The resources that each trial requests, and how many trials share a GPU according to their measured memory."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

_log = logging.getLogger("nbt")

# Memory of the CUDA context and its libraries, which peak_memory_bytes excludes; margin for differences in settings.
_CONTEXT_BYTES = 1 << 29
_SAFETY_FACTOR = 1.25
# The frozen-feature caches of all trials on a GPU use a quarter of it together, see `nbt.training.worker.context`.
_SHARE_WITHOUT_CACHES = 0.75
MAX_TRIALS_PER_GPU = 16


class GpuPacking:
    """Determines the resources per trial, in particular the share of a GPU.

    Args:
        resources: Initial request per trial, by Ray's resource names ("CPU", "GPU").
        measure_memory: Whether the share of a GPU is computed from the peak memory of finished trials; until one has
            finished, each trial gets the initial share. If False, the share grows only when a trial runs out of
            memory.
        gpus: Number of GPUs of the cluster.
    """

    def __init__(self, resources: Mapping[str, float], *, measure_memory: bool = False, gpus: float = 1.0) -> None:
        self._resources = dict(resources)
        self._gpus = gpus
        self._measure_memory = measure_memory and self._resources.get("GPU", 0.0) > 0
        self._measured_share = 0.0
        self._min_share = 0.0
        if measure_memory and not self._measure_memory:
            _log.warning("--gpus-per-trial auto: the cluster has no GPU; the trials run on its CPUs")

    def choose_slot(self, free: Sequence[int], busy: Mapping[int, Mapping[str, float]]) -> int | None:
        """Returns the slot of the next trial, or None if it has to wait.

        Args:
            free: Numbers of the free slots in ascending order, at least one.
            busy: The resources of the running trials by slot.
        """
        return free[0]

    def resources(self) -> dict[str, float]:
        """Returns the resources that the next trial requests."""
        return dict(self._resources)

    def max_concurrent(self, requested: int) -> int:
        """Returns the number of trials to run concurrently, at most `requested`.

        Until a trial has been measured, this is one trial per GPU: a trial that is queued with a request for a whole
        GPU would keep this request after a smaller share is known to suffice. After a trial has run out of memory, it
        is the number of shares that the GPUs provide.
        """
        if self._measure_memory and not self._measured_share:
            return max(1, min(requested, int(self._gpus)))
        if self._min_share:
            return max(1, min(requested, int(self._gpus) * _trials_per_gpu(self._resources["GPU"])))
        return requested

    def record_memory(self, facts: Mapping[str, Any]) -> None:
        """Updates the share of a GPU from the memory that a trial has used.

        Args:
            facts: "peak_memory_bytes", the peak memory of the trial's process; "cache_memory_bytes", the part of it
                used by frozen-feature caches, which shrink with the share; "device_memory_bytes", the GPU's memory.
                Nothing changes if the first or the last is missing.
        """
        peak, total = facts.get("peak_memory_bytes"), facts.get("device_memory_bytes")
        if self._measure_memory and peak and total:
            used = max(0.0, float(peak) - float(facts.get("cache_memory_bytes") or 0))
            self._measured_share = max(
                self._measured_share, (_SAFETY_FACTOR * used + _CONTEXT_BYTES) / (_SHARE_WITHOUT_CACHES * float(total))
            )
            self._update_share()

    def reduce_sharing(self, resources: Mapping[str, float]) -> bool:
        """Increases the share of a GPU per trial after a trial has run out of memory.

        Args:
            resources: The resources of that trial; nothing changes if trials request more than this by now.

        Returns:
            Whether the trial shared a GPU.
        """
        share = resources.get("GPU", 0.0)
        if not 0.0 < share < 1.0:
            return False
        self._min_share = max(self._min_share, 1.0 / max(1, _trials_per_gpu(share) - 1))
        self._update_share()
        return True

    def _update_share(self) -> None:
        trials = _trials_per_gpu(max(self._measured_share, self._min_share, 1.0 / MAX_TRIALS_PER_GPU))
        self._resources["GPU"] = _share_of(trials)


class LocalGpuPacking(GpuPacking):
    """Also places the trials on the GPUs of this machine, as Ray does on a cluster; slot i is on GPU i modulo `gpus`.

    Args:
        workers: Number of workers.
        gpus: Number of GPUs; 0 for workers on the CPU, which request no resources.
        measure_memory: As in `GpuPacking`; if False, a trial gets an equal share of its GPU.
    """

    def __init__(self, workers: int, gpus: int, *, measure_memory: bool = False) -> None:
        share = 1.0 if measure_memory else _share_of(math.ceil(workers / max(1, gpus)))
        super().__init__({"GPU": share} if gpus else {}, measure_memory=measure_memory and gpus > 0, gpus=gpus)
        self._workers, self._gpu_count = workers, gpus

    def choose_slot(self, free: Sequence[int], busy: Mapping[int, Mapping[str, float]]) -> int | None:
        """Returns the first free slot of the GPU with the largest free share, or None if no GPU has room."""
        if not self._gpu_count:
            return free[0]
        used: dict[int, float] = defaultdict(float)
        for slot, resources in busy.items():
            used[slot % self._gpu_count] += resources["GPU"]
        share = self._resources["GPU"]
        candidates = [slot for slot in free if used[slot % self._gpu_count] + share <= 1.0 + 1e-9]
        return min(candidates, key=lambda slot: (used[slot % self._gpu_count], slot), default=None)

    @property
    def max_workers(self) -> int:
        """Number of workers that may run at the same time with the present share."""
        if not self._gpu_count:
            return self._workers
        return min(self._workers, self._gpu_count * _trials_per_gpu(self._resources["GPU"]))


def _share_of(trials: int) -> float:
    """Returns the share of a GPU of each of `trials` trials, rounded down, because the last would not fit otherwise."""
    return 1.0 if trials == 1 else int(10_000 / trials) / 10_000


def _trials_per_gpu(share: float) -> int:
    """Returns the number of trials with the given share that fit on one GPU; the share may have been rounded down."""
    return max(1, int(1.0 / share + 1e-9))
