"""The cache of near copies, by the content of the images."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbt.cache import touch
from nbt.data.near_copies.search import NearCopies, find_near_copies
from nbt.files import atomic_file
from nbt.paths import cache_folder

logger = logging.getLogger("nbt")

ALGORITHM_VERSION = 3
"""Part of the name of a cache file; incremented when other images are found."""


def cached_near_copies(images: npt.NDArray[np.uint8], dataset: str = "") -> NearCopies:
    """Returns the near copies of images, from the cache if these images have been searched before.

    Args:
        images: RGB images, uint8 (N, H, H, 3).
        dataset: The dataset, for the list of the cache.
    """
    digest = hashlib.blake2b(f"{ALGORITHM_VERSION} {images.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    path = cache_folder("copies") / f"{digest.hexdigest()}.json"
    found = _read(path)
    if found is None:
        found = find_near_copies(images)
        _write(path, found, dataset)
    if found.not_compared:
        logger.warning(
            "very many images are similar: %s pairs were not compared, so that not all near copies may be found",
            f"{found.not_compared:,}",
        )
    return found


def _read(path: Path) -> NearCopies | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        touch(path)
        groups = tuple(np.array(group, dtype=np.int64) for group in stored["groups"])
        mirrored = np.array(stored["mirrored"], dtype=np.int64).reshape(-1, 2)
        return NearCopies(groups, mirrored, int(stored.get("not_compared", 0)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, found: NearCopies, dataset: str) -> None:
    groups = [group.tolist() for group in found.groups]
    text = json.dumps(
        {
            "dataset": dataset,
            "groups": groups,
            "mirrored": found.mirrored.tolist(),
            "not_compared": found.not_compared,
        }
    )
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        logger.warning("the near copies are not cached: %s", error)
