"""GpuPacking: what a run asks of a cluster, and how many runs share a GPU once their memory has been measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger("nbt")

# What CUDA and its libraries take beside the tensors that are counted, and room for what varies between settings.
_CONTEXT_BYTES = 1 << 29
_SAFETY_FACTOR = 1.25
# The prefix caches of all runs on a GPU take a quarter of it together, see `nbt.training.worker.context`.
_SHARE_WITHOUT_CACHES = 0.75
_MAX_TRIALS_PER_GPU = 16


class GpuPacking:
    """What a run asks for.

    Args:
        resources: By Ray's names.
        measured: Whether the share of a GPU follows from the memory that runs took. The first ones have one each. A
            share that does not grows only where runs ran out of memory with it.
        gpus: GPUs of the cluster.
    """

    def __init__(self, resources: Mapping[str, float], *, measured: bool = False, gpus: float = 1.0) -> None:
        self._resources = dict(resources)
        self._gpus = gpus
        self._measure_memory = measured and self._resources.get("GPU", 0.0) > 0
        self._measured_share = 0.0
        self._min_share = 0.0
        if measured and not self._measure_memory:
            _log.warning("--gpus-per-trial auto: the cluster has no GPU; the trials run on its CPUs")

    def current(self) -> dict[str, float]:
        """Returns what the next run asks for."""
        return dict(self._resources)

    def max_concurrent(self, requested: int) -> int:
        """Returns how many of the requested runs to start.

        Until one has been measured that is one a GPU: a run that waits for a GPU of its own would get one, long after
        it is known that it needs a share alone. After one ran out of memory it is what the GPUs have room for.
        """
        if self._measure_memory and not self._measured_share:
            return max(1, min(requested, int(self._gpus)))
        if self._min_share:
            return max(1, min(requested, int(self._gpus) * _trials_per_gpu(self._resources["GPU"])))
        return requested

    def record_memory(self, facts: Mapping[str, Any]) -> None:
        """Takes what a run says of the memory that it took and of its GPU's.

        Args:
            facts: "peak_memory_bytes", the most that its process held at once; of these "cache_memory_bytes" for prefix
                caches, which shrink with the share; "device_memory_bytes", all that the GPU has.
        """
        peak, total = facts.get("peak_memory_bytes"), facts.get("device_memory_bytes")
        if self._measure_memory and peak and total:
            own = max(0.0, float(peak) - float(facts.get("cache_memory_bytes") or 0))
            self._measured_share = max(
                self._measured_share, (_SAFETY_FACTOR * own + _CONTEXT_BYTES) / (_SHARE_WITHOUT_CACHES * float(total))
            )
            self._update_share()

    def reduce_sharing(self, resources: Mapping[str, float]) -> bool:
        """Lets fewer runs share a GPU, after one ran out of memory.

        Args:
            resources: What that run had asked for: where more than that is asked for by now, nothing changes.

        Returns:
            False where it shared no GPU.
        """
        share = resources.get("GPU", 0.0)
        if not 0.0 < share < 1.0:
            return False
        self._min_share = max(self._min_share, 1.0 / max(1, _trials_per_gpu(share) - 1))
        self._update_share()
        return True

    def _update_share(self) -> None:
        runs = _trials_per_gpu(max(self._measured_share, self._min_share, 1.0 / _MAX_TRIALS_PER_GPU))
        # Rounded down, or the last one would not fit.
        self._resources["GPU"] = 1.0 if runs == 1 else int(10_000 / runs) / 10_000


def _trials_per_gpu(share: float) -> int:
    """Returns how many runs with such a share of a GPU fit on one; the share may have been rounded down."""
    return max(1, int(1.0 / share + 1e-9))
