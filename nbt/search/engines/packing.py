"""Packing: what a run asks of a cluster, and how many runs share a GPU once their memory has been measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What CUDA and its libraries take beside the tensors that are counted, and room for what varies between settings.
_CONTEXT_BYTES = 1 << 29
_MARGIN = 1.25
_MOST_ON_A_GPU = 16


class Packing:
    """What a run asks for.

    Args:
        resources: By Ray's names.
        measured: Whether the share of a GPU follows from the memory that runs took. The first ones have one each.
    """

    def __init__(self, resources: Mapping[str, float], *, measured: bool = False) -> None:
        self._resources = dict(resources)
        self._measured = measured and self._resources.get("GPU", 0.0) > 0
        self._seen = 0.0
        self._least = 0.0

    def current(self) -> dict[str, float]:
        """Returns what the next run asks for."""
        return dict(self._resources)

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Takes what a run says of the memory that it took and of its GPU's."""
        peak, total = facts.get("peak_memory_bytes"), facts.get("device_memory_bytes")
        if self._measured and peak and total:
            self._seen = max(self._seen, (_MARGIN * float(peak) + _CONTEXT_BYTES) / float(total))
            self._share_out()

    def back_off(self) -> bool:
        """Lets fewer runs share a GPU, after one ran out of memory; False where they share none, or not by measure."""
        share = self._resources.get("GPU", 0.0)
        if not self._measured or share >= 1.0:
            return False
        self._least = 1.0 / (round(1.0 / share) - 1)
        self._share_out()
        return True

    def _share_out(self) -> None:
        wanted = max(self._seen, self._least, 1.0 / _MOST_ON_A_GPU)
        runs = max(1, int(1.0 / wanted + 1e-9))
        # Rounded down, or the last one would not fit.
        self._resources["GPU"] = 1.0 if runs == 1 else int(10_000 / runs) / 10_000
