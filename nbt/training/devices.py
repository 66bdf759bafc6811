"""Device and precision of training; what it shares with measuring is in `nbt.task.devices`."""

from __future__ import annotations

from nbt.task.devices import autocast, images_at_once, out_of_memory, pick_device, precision

__all__ = ["EVALUATION_BATCH", "autocast", "images_at_once", "out_of_memory", "pick_device", "precision"]

EVALUATION_BATCH = 256
"""Images of 224 px and less at a time where nothing is trained: what a loop over a source's or a stream's images holds
in memory; see `images_at_once`."""
