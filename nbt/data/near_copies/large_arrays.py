"""Arrays that may be too large to be kept in memory."""

from __future__ import annotations

import math
import os
import tempfile

import numpy as np

from nbt.data.near_copies.thumbnails import Floats
from nbt.paths import cache_root

MAX_IN_MEMORY = 128 * 2**20
"""Size in bytes up to which an array is kept in memory."""


def empty_array(*shape: int) -> Floats:
    """Returns an uninitialised array; a large one is in a temporary file, so that its pages need not stay in memory.

    The file has no name and disappears with the array. Where the cache folder has no room for it, the array is kept in
    memory.

    Args:
        *shape: Shape of the array.
    """
    size = 4 * math.prod(shape)
    if size <= MAX_IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    try:
        folder = cache_root()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # A page of a file without room on the disk would end the process when it is written.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))
    except (OSError, AttributeError):  # not every system can reserve room
        return np.empty(shape, dtype=np.float32)
