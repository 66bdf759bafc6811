"""Packing: what a run asks of a cluster, and how many runs share a GPU once their memory has been measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger("nbt")

# What CUDA and its libraries take beside the tensors that are counted, and room for what varies between settings.
_CONTEXT_BYTES = 1 << 29
_MARGIN = 1.25
# The prefix caches of all runs on a GPU take a quarter of it together, see `nbt.training.workbench`.
_WITHOUT_CACHES = 0.75
_MOST_ON_A_GPU = 16


class Packing:
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
        self._measured = measured and self._resources.get("GPU", 0.0) > 0
        self._seen = 0.0
        self._least = 0.0
        if measured and not self._measured:
            _log.warning("--gpus-per-trial auto: the cluster has no GPU; the trials run on its CPUs")

    def current(self) -> dict[str, float]:
        """Returns what the next run asks for."""
        return dict(self._resources)

    def at_a_time(self, wanted: int) -> int:
        """Returns how many of the wanted runs to start.

        Until one has been measured that is one a GPU: a run that waits for a GPU of its own would get one, long after
        it is known that it needs a share alone. After one ran out of memory it is what the GPUs have room for.
        """
        if self._measured and not self._seen:
            return max(1, min(wanted, int(self._gpus)))
        if self._least:
            return max(1, min(wanted, int(self._gpus) * _runs(self._resources["GPU"])))
        return wanted

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Takes what a run says of the memory that it took and of its GPU's.

        Args:
            facts: "peak_memory_bytes", the most that its process held at once; of these "cache_memory_bytes" for prefix
                caches, which shrink with the share; "device_memory_bytes", all that the GPU has.
        """
        peak, total = facts.get("peak_memory_bytes"), facts.get("device_memory_bytes")
        if self._measured and peak and total:
            own = max(0.0, float(peak) - float(facts.get("cache_memory_bytes") or 0))
            self._seen = max(self._seen, (_MARGIN * own + _CONTEXT_BYTES) / (_WITHOUT_CACHES * float(total)))
            self._share_out()

    def back_off(self, resources: Mapping[str, float]) -> bool:
        """Lets fewer runs share a GPU, after one ran out of memory.

        Args:
            resources: What that run had asked for: where more than that is asked for by now, nothing changes.

        Returns:
            False where it shared no GPU.
        """
        share = resources.get("GPU", 0.0)
        if not 0.0 < share < 1.0:
            return False
        self._least = max(self._least, 1.0 / max(1, _runs(share) - 1))
        self._share_out()
        return True

    def _share_out(self) -> None:
        runs = _runs(max(self._seen, self._least, 1.0 / _MOST_ON_A_GPU))
        # Rounded down, or the last one would not fit.
        self._resources["GPU"] = 1.0 if runs == 1 else int(10_000 / runs) / 10_000


def _runs(share: float) -> int:
    """Returns how many runs with such a share of a GPU fit on one; the share may have been rounded down."""
    return max(1, int(1.0 / share + 1e-9))
