"""All images of a task as one tensor on the device of the trials, if they fit."""

from __future__ import annotations

import numpy as np
import torch

from nbt.data.image_store import Pixels

# Bytes that are read and copied at a time.
_COPY_CHUNK_BYTES = 1 << 26


def device_resident_images(array: Pixels, device: torch.device, workers_per_device: int = 1) -> torch.Tensor | None:
    """Returns all images as one tensor on the device, or None if batches should be gathered from the array.

    Args:
        array: Images, uint8 (N, H, H, 3), in memory or memory-mapped.
        device: Device of the trials.
        workers_per_device: Number of workers that use this device, each with its own copy of the images, 1 or more.

    Returns:
        Images, uint8 (N, H, H, 3). None if they need a quarter or more of this worker's share of the free memory of the
        GPU, or if the device is the CPU and the array is memory-mapped, so that it would be read as a whole.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return copy_in_chunks(array, device) if array.nbytes < free // 4 // workers_per_device else None
    return None if isinstance(array, np.memmap) else torch.from_numpy(array)


def copy_in_chunks(array: Pixels, device: torch.device) -> torch.Tensor:
    """Returns a copy of the images on a device, made in chunks so that the array is never in memory as a whole."""
    images = torch.empty(array.shape, dtype=torch.uint8, device=device)
    step = max(1, _COPY_CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        # PyTorch warns about arrays that are not writable, hence the copy.
        part = np.array(array[start : start + step])
        images[start : start + len(part)].copy_(torch.from_numpy(part))
    return images
