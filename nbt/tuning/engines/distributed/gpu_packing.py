"""The resources that each trial requests, and how many trials share a GPU according to their measured memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger("nbt")

# Memory of the CUDA context and its libraries, which peak_memory_bytes excludes; margin for differences in settings.
_CONTEXT_BYTES = 1 << 29
_SAFETY_FACTOR = 1.25
# The frozen-feature caches of all trials on a GPU use a quarter of it together, see `nbt.training.worker.context`.
_SHARE_WITHOUT_CACHES = 0.75
_MAX_TRIALS_PER_GPU = 16


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
        trials = _trials_per_gpu(max(self._measured_share, self._min_share, 1.0 / _MAX_TRIALS_PER_GPU))
        # Rounded down; otherwise the last trial would not fit.
        self._resources["GPU"] = 1.0 if trials == 1 else int(10_000 / trials) / 10_000


def _trials_per_gpu(share: float) -> int:
    """Returns the number of trials with the given share that fit on one GPU; the share may have been rounded down."""
    return max(1, int(1.0 / share + 1e-9))
