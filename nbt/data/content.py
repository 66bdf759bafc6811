"""Hashes of the bytes of image files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbt.machine.cores import usable_cores


def content_hash(paths: Sequence[Path], workers: int | None = None) -> str:
    """Returns a hash of the bytes and suffixes of files, in order; their names, places and times do not matter.

    Every call reads all bytes, so that no change of a file is missed.

    Args:
        paths: The files; one that cannot be read enters as such.
        workers: Number of threads; one per usable core when None.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="nbt-hash") as pool:
        for path, of_file in zip(paths, pool.map(_hash_file, paths), strict=True):
            digest.update(path.suffix.lower().encode("utf-8", "surrogateescape") + b"\0" + of_file)
    return digest.hexdigest()


def _hash_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"unreadable"
