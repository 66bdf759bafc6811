"""Hashes of the bytes of image files, which are read again only where a file may have changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nbt.cache import touch
from nbt.files import atomic_file
from nbt.machine.cores import usable_cores
from nbt.paths import cache_folder

Hashes = npt.NDArray[np.uint8]
"""SHA-256 of files, uint8 (N, 32)."""

_CHUNK_SIZE = 64
# A file that changed less than this before it was read may change again without another time.
_COARSEST_TIME_NS = 2_000_000_000
# The time of the change of the inode, which no program can set; on Windows it is that of the creation.
_HAS_CHANGE_TIME = os.name == "posix"


def file_hashes(paths: Sequence[Path], workers: int | None = None) -> Hashes:
    """Returns the hash of the bytes of each file, from the cache for files that have not changed since.

    A file has not changed if its size, its inode and the times of its last modification and of the last change of its
    inode are the same. The latter cannot be set, so that a file with a restored time of modification is read again.

    Args:
        paths: The files; the hash of one that cannot be read is 0.
        workers: Number of threads; one per usable core when None.
    """
    stats = np.array([_stat(path) for path in paths], dtype=np.int64).reshape(-1, 4)
    names = hashlib.blake2b("\0".join(map(str, paths)).encode("utf-8", "surrogateescape"), digest_size=16)
    cached = cache_folder("hashes") / f"{names.hexdigest()}.npz"
    started = time.time_ns()
    hashes, known = _read(cached, stats)
    changed = np.flatnonzero(~known)
    if len(changed):
        chunks = [changed[start : start + _CHUNK_SIZE] for start in range(0, len(changed), _CHUNK_SIZE)]
        with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="nbt-hash") as pool:
            for chunk, of_chunk in zip(chunks, pool.map(lambda c: [_hash(paths[i]) for i in c], chunks), strict=True):
                hashes[chunk] = np.frombuffer(b"".join(of_chunk), dtype=np.uint8).reshape(-1, 32)
        _write(cached, stats, hashes, np.where(known, 0, started))
    return hashes


def content_hash(paths: Sequence[Path], hashes: Hashes | None = None) -> str:
    """Returns a hash of the bytes and suffixes of files, in order; their names, places and times do not matter.

    Args:
        paths: The files.
        hashes: Their hashes, as of `file_hashes`, which makes them when None.
    """
    digest = hashlib.sha256()
    for path, of_file in zip(paths, file_hashes(paths) if hashes is None else hashes, strict=True):
        digest.update(path.suffix.lower().encode("utf-8", "surrogateescape") + b"\0" + of_file.tobytes())
    return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, 0, 0, 0)
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino - (stat.st_ino >= 2**63) * 2**64)


def _hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return bytes(32)


def _read(cached: Path, stats: npt.NDArray[np.int64]) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Returns the cached hashes, and which of them are those of the files as they are, (N,)."""
    unknown = np.zeros((len(stats), 32), dtype=np.uint8), np.zeros(len(stats), dtype=bool)
    if not _HAS_CHANGE_TIME:
        return unknown
    try:
        with np.load(cached, allow_pickle=False) as stored:
            hashes, trusted = stored["hashes"], stored["trusted"]
            same = (stored["stats"] == stats).all(axis=1) & trusted & (stats[:, 0] >= 0)
    except Exception:  # missing, damaged, or of another kind
        return unknown
    touch(cached)
    return (hashes, same) if hashes.shape == unknown[0].shape and hashes.dtype == np.uint8 else unknown


def _write(cached: Path, stats: npt.NDArray[np.int64], hashes: Hashes, started: npt.NDArray[np.int64]) -> None:
    """Writes hashes to the cache; `started` is the time before the files were read, 0 where a cached hash was used."""
    trusted = (started == 0) | (stats[:, 2] + _COARSEST_TIME_NS < started)
    with contextlib.suppress(OSError), atomic_file(cached) as temporary, temporary.open("wb") as file:
        np.savez(file, stats=stats, hashes=hashes, trusted=trusted)
