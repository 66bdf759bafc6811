"""Device and precision of training; what it shares with measuring is in `nbt.task.devices`."""

from __future__ import annotations

from nbt.task.devices import autocast, inference_batch_size, out_of_memory, pick_device, precision

__all__ = ["INFERENCE_BATCH_SIZE", "autocast", "inference_batch_size", "out_of_memory", "pick_device", "precision"]

INFERENCE_BATCH_SIZE = 256
"""Images of 224 px and less at a time where nothing is trained: what a loop over a source's or a stream's images holds
in memory; see `inference_batch_size`."""
