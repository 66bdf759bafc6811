"""Cache of the frozen units' features in files that all workers of a machine map: each view is computed once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nbt.training.worker.feature_cache import CHUNK_SIZE, Entry, FrozenFeatureCache


class SharedFeatureCache(FrozenFeatureCache):
    """Frozen-feature cache of a worker that shares its entries with the other workers of the same task.

    An entry is a file of features and a file that marks the rows that are computed. Both are memory-mapped, so that
    workers share the memory that they take. A worker computes missing rows under a lock; another worker that needs rows
    of the same entry waits and then reads them. The files used least recently are removed when the limit is reached.

    Args:
        n_rows: Number of images, each of which has one row; equal for all workers.
        folder: Folder of the files, created when needed. The owner of the workers removes it.
        disk_bytes: Upper bound of the files of all workers, in bytes; None uses half of the free space of their folder.
        chunk: As in `FrozenFeatureCache`.
    """

    def __init__(self, n_rows: int, folder: Path, *, disk_bytes: int | None = None, chunk: int = CHUNK_SIZE) -> None:
        super().__init__(n_rows, 0, disk_bytes=disk_bytes, chunk=chunk)
        self._shared_folder = folder

    def fill(
        self, key: Hashable, rows: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor | None:
        """Computes the features of `rows` that no worker has computed, and returns the entry; see the base class."""
        for other, entry in list(self._entries.items()):
            if entry.file is None or not entry.file.exists():  # removed by another worker
                del self._entries[other]
        with self._locked(_file_name(key)):
            if key not in self._entries and (shared := self._open(key)) is not None:
                self._entries[key] = shared
            if key in self._entries:
                with suppress(OSError):
                    os.utime(self._path(key))
            return super().fill(key, rows, compute)

    def _allocate(self, key: Hashable, example: torch.Tensor) -> Entry | None:
        shape = (self.n_rows, *example.shape[1:])
        nbytes = self.n_rows * example[0].numel() * example.element_size()
        try:
            with self._locked("folder"):
                if not self._make_room(nbytes):
                    return None
                values = _create(self._path(key), shape, example.numpy().dtype)
            filled = _create(self._filled_path(key), (self.n_rows,), np.dtype(np.bool_))
        except OSError:  # the disk is full
            self._path(key).unlink(missing_ok=True)
            return None
        entry = self._entries[key] = Entry(torch.from_numpy(values), torch.from_numpy(filled), self._path(key))
        return entry

    def _open(self, key: Hashable) -> Entry | None:
        """Returns the entry that another worker has created; None if there is none or its files are damaged."""
        try:
            values, filled = _open_whole(self._path(key)), _open_whole(self._filled_path(key))
        except (OSError, ValueError):
            return None
        if len(values) != self.n_rows or filled.shape != (self.n_rows,) or filled.dtype != np.bool_:
            return None
        return Entry(torch.from_numpy(values), torch.from_numpy(filled), self._path(key))

    def _make_room(self, nbytes: int) -> bool:
        """Removes the files used least recently until another one fits; returns whether it does."""
        used = {path: path.stat() for path in self._shared_folder.glob("*.npy")}
        total = sum(status.st_size for status in used.values())
        limit = self._disk_bytes
        if limit is None:
            limit = (shutil.disk_usage(self._shared_folder).free + total) // 2
        if nbytes > limit:
            return False
        for path, status in sorted(used.items(), key=lambda item: item[1].st_mtime_ns):
            if total + nbytes <= limit:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size
        return True

    def _path(self, key: Hashable) -> Path:
        return self._shared_folder / f"{_file_name(key)}.npy"

    def _filled_path(self, key: Hashable) -> Path:
        return self._shared_folder / f"{_file_name(key)}.rows"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Holds a lock that only one worker holds at a time; it is released if the worker is killed."""
        self._shared_folder.mkdir(parents=True, exist_ok=True)
        with (self._shared_folder / f"{name}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _file_name(key: Hashable) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]


def _open_whole(path: Path) -> npt.NDArray[np.generic]:
    """Opens a memory-mapped array for reading and writing.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged; NumPy would extend a file that is too short.
    """
    size = path.stat().st_size
    array = np.lib.format.open_memmap(path, mode="r+")
    if array.offset + array.nbytes != size:
        raise ValueError(f"{path}: expected {array.offset + array.nbytes} bytes, got {size}")
    return array


def _create(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    """Creates a memory-mapped array of zeros whose disk space is reserved.

    Raises:
        OSError: The disk is full. Without the reservation, a later write to the array would end the process.
    """
    path.unlink(missing_ok=True)  # other workers may map the old file
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
