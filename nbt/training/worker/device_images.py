"""Images as one tensor where the trials run, if they fit there well."""

from __future__ import annotations

import numpy as np
import torch

from nbt.data.image_store import Pixels

# Bytes that are read and sent together.
_COPY_CHUNK_BYTES = 1 << 26


def device_resident_images(array: Pixels, device: torch.device, workers_per_device: int = 1) -> torch.Tensor | None:
    """Returns images as one tensor, on a GPU where they take less than a quarter of what is free there.

    Args:
        array: uint8 (N, H, H, 3), in memory or a memory map.
        device: Where the trials run.
        workers_per_device: Workers that use this device, each with images of its own, 1 or more.

    Returns:
        uint8 (N, H, H, 3); None where batches are better gathered from the array: they do not fit on the GPU, or they
        are a memory map, which would be read as a whole, and there is no GPU.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return copy_in_chunks(array, device) if array.nbytes < free // 4 // workers_per_device else None
    return None if isinstance(array, np.memmap) else torch.from_numpy(array)


def copy_in_chunks(array: Pixels, device: torch.device) -> torch.Tensor:
    """Returns a copy of images on a device that never needs them in memory as a whole."""
    images = torch.empty(array.shape, dtype=torch.uint8, device=device)
    step = max(1, _COPY_CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        # A copy: torch takes no arrays that cannot be written to without a warning.
        part = np.array(array[start : start + step])
        images[start : start + len(part)].copy_(torch.from_numpy(part))
    return images
