"""Cache of the frozen units' features per image view, computed once and held in memory or on disk."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

CHUNK_SIZE = 64
"""Images per forward pass through the frozen units, up to 224 px."""


@dataclass(eq=False)
class Entry:
    """Features of one view of all images; `filled` marks the rows that are computed."""

    values: torch.Tensor
    filled: torch.Tensor
    file: Path | None = None

    @property
    def nbytes(self) -> int:
        """Size of the features in bytes."""
        return self.values.numel() * self.values.element_size()


class FrozenFeatureCache:
    """Least-recently-used cache of the features of image views.

    Entries stay on the device of the features up to `memory_bytes`. Older entries move to memory-mapped files up to
    `disk_bytes`; the oldest ones are dropped and computed again when needed, with the same result.

    Args:
        n_rows: Number of images, each of which has one row.
        memory_bytes: Upper bound of the entries in memory, in bytes.
        disk_bytes: Upper bound of the files, in bytes; None uses half of the free space of their folder.
        folder: Parent folder of the files; None uses the system's temporary folder. `close` removes the files.
        chunk: Number of rows per call of `compute`, 1 or more. Short chunks are padded to this number, because a kernel
            may sum in another order for another batch size; a row's features must not depend on the other rows.
    """

    def __init__(
        self,
        n_rows: int,
        memory_bytes: int,
        *,
        disk_bytes: int | None = None,
        folder: Path | None = None,
        chunk: int = CHUNK_SIZE,
    ) -> None:
        self.n_rows = n_rows
        self.chunk = chunk
        self.memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._parent_folder = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._n_files = 0

    @property
    def memory_used(self) -> int:
        """The bytes of all entries in memory."""
        return sum(entry.nbytes for entry in self._entries.values() if entry.file is None)

    @property
    def disk_used(self) -> int:
        """The bytes of all entries in files."""
        return sum(entry.nbytes for entry in self._entries.values() if entry.file is not None)

    def fill(
        self, key: Hashable, rows: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor | None:
        """Computes the missing features of `rows` and returns the entry.

        Args:
            key: Key of the view: starting weights, frozen depth, augmentation and number of the view.
            rows: Rows, int64 (n,), on the CPU.
            compute: Maps exactly `chunk` rows to their features, (chunk, ...).

        Returns:
            Features (n_rows, ...), in memory or memory-mapped, in which at least `rows` are filled. They stay valid
            after the entry is dropped. None if an entry fits neither in memory nor on disk.
        """
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            rows = rows[~entry.filled[rows]]
        chunks = rows.split(self.chunk) if len(rows) else ()
        for chunk, features in zip(chunks, self.compute(rows, compute), strict=True):
            entry = entry or self._allocate(key, features)
            if entry is None:
                return None
            entry.values[chunk.to(entry.values.device)] = features.to(entry.values.device)
            entry.filled[chunk] = True
        return None if entry is None else entry.values

    def compute(self, rows: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yields the features of `rows` in chunks without keeping them, equal to those that `fill` keeps.

        Args:
            rows: int64 (n,), on the CPU.
            compute: As in `fill`.
        """
        for chunk in rows.split(self.chunk) if len(rows) else ():
            padded = torch.cat([chunk, chunk[-1:].expand(self.chunk - len(chunk))])
            yield compute(padded)[: len(chunk)]

    def close(self) -> None:
        """Drops all entries and removes the files."""
        self._entries.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _allocate(self, key: Hashable, example: torch.Tensor) -> Entry | None:
        shape = (self.n_rows, *example.shape[1:])
        nbytes = self.n_rows * example[0].numel() * example.element_size()
        filled = torch.zeros(self.n_rows, dtype=torch.bool)
        if nbytes <= self.memory_bytes:
            self._spill_to_disk(self.memory_bytes - nbytes)
            entry = Entry(torch.empty(shape, dtype=example.dtype, device=example.device), filled)
        else:
            values, file = self._allocate_file(shape, example.dtype, nbytes)
            if values is None:
                return None
            entry = Entry(values, filled, file)
        self._entries[key] = entry
        return entry

    def _spill_to_disk(self, allowed: int) -> None:
        for key, entry in list(self._entries.items()):
            if self.memory_used <= allowed:
                return
            if entry.file is None:
                values, file = self._allocate_file(tuple(entry.values.shape), entry.values.dtype, entry.nbytes)
                if values is None:
                    del self._entries[key]
                else:
                    values.copy_(entry.values)
                    entry.values, entry.file = values, file

    def _allocate_file(
        self, shape: tuple[int, ...], dtype: torch.dtype, nbytes: int
    ) -> tuple[torch.Tensor | None, Path | None]:
        if self._folder is None:
            # Unlike a folder of mkdtemp, this one is also removed when the process ends without `close`.
            self._folder = tempfile.TemporaryDirectory(prefix="nbt-prefix-", dir=self._parent_folder)
        folder = Path(self._folder.name)
        limit = self._disk_bytes
        if limit is None:
            limit = (shutil.disk_usage(folder).free + self.disk_used) // 2
        for key, entry in list(self._entries.items()):
            if self.disk_used + nbytes <= limit:
                break
            if entry.file is not None:
                del self._entries[key]
                entry.file.unlink(missing_ok=True)
        if self.disk_used + nbytes > limit:
            return None, None
        self._n_files += 1
        file = folder / f"{self._n_files:06d}.bin"
        count = nbytes // torch.empty((), dtype=dtype).element_size()
        return torch.from_file(str(file), shared=True, size=count, dtype=dtype).view(shape), file


def rebatch(chunks: Iterator[torch.Tensor], sizes: Sequence[int]) -> Iterator[torch.Tensor]:
    """Yields the rows of chunks again in batches of other sizes, in the same order.

    Args:
        chunks: (n, ...) each, together as many rows as the sizes add up to.
        sizes: Rows per batch.
    """
    held: list[torch.Tensor] = []
    for size in sizes:
        while sum(map(len, held)) < size:
            held.append(next(chunks))
        rows = torch.cat(held) if len(held) > 1 else held[0]
        yield rows[:size]
        held = [rows[size:]]
