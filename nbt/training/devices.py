"""Device and precision of training; what it shares with measuring is in `nbt.task.devices`."""

from __future__ import annotations

import torch

from nbt.task.devices import autocast, pick_device

__all__ = ["EVALUATION_BATCH", "autocast", "out_of_memory", "pick_device"]

EVALUATION_BATCH = 256
"""Images at a time where nothing is trained: what a loop over a source's or a stream's images holds in memory."""


def out_of_memory(error: BaseException) -> bool:
    """Tells whether an exception is a device or the machine running out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))
