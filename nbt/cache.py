"""The cache on disk: its entries, their use by processes, and the bound of its size.

The folders `KINDS` of `nbt.paths.cache_folder` hold entries: folders, and files that agree in the part of their names
before the first dot. A process that uses an entry locks a file in the folder locks. The time of this file, else that of
the youngest file, is the time of the last use.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from nbt.errors import UsageError
from nbt.paths import cache_folder

if sys.platform != "win32":  # Windows does not remove files that are open
    import fcntl

logger = logging.getLogger("nbt")

FEATURES = "features"
"""Folder of the features of frozen units."""

MODELS = "models"
"""Folder of the forests that are fitted to recorded learning curves."""

KINDS = {
    "images": "decoded images",
    "copies": "near copies",
    "fit": "fit profiles",
    "hashes": "hashes of files",
    FEATURES: "features of frozen units",
    MODELS: "forests of recorded curves",
    "sources": "models pretrained by nbt",
    "datasets": "downloads",
}
"""Folders of the cache, and what they hold."""

DEFAULT_LIMIT = 20 * 10**9
"""Bound in bytes of the entries that are removed automatically."""

# Downloads and pretrained models take long to make again, or cannot be made again without a network.
_BOUNDED = ("images", "copies", "fit", "hashes", FEATURES, MODELS)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache.

    Attributes:
        kind: Its folder, one of `KINDS`.
        name: Name of its folder, or of its files before the first dot.
        dataset: The dataset that it belongs to; "" where this is not known.
        bytes: Size of its files.
        last_used: Time of the last use in seconds since 1970.
        paths: Its files, or its folder.
    """

    kind: str
    name: str
    dataset: str
    bytes: int
    last_used: float
    paths: tuple[Path, ...]


class CacheUse:
    """The use of an entry: as long as this object exists, no process removes the entry.

    A pickled use is one of the process that loads it, too.

    Args:
        kind: Folder of the entry, one of `KINDS`.
        name: Name of its folder, or of its files before the first dot.
    """

    def __init__(self, kind: str, name: str) -> None:
        self._key = kind, name
        path = _lock_path(kind, name)
        descriptor = _lock_shared(path)
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)
        touch(path)

    def __reduce__(self) -> tuple[type[CacheUse], tuple[str, str]]:
        return CacheUse, self._key


def touch(path: Path) -> None:
    """Notes the use of an entry; one of a cache that cannot be written keeps its time."""
    with contextlib.suppress(OSError):
        os.utime(path)


def cache_limit() -> int:
    """Returns the bound of the cache in bytes, `$NBT_CACHE_LIMIT`.

    Raises:
        UsageError: The value of the variable is no size.
    """
    text = os.environ.get("NBT_CACHE_LIMIT", "").strip()
    if not text:
        return DEFAULT_LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.upper())
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"NBT_CACHE_LIMIT={text}: expected a size such as 500MB, 20GB or 1.5TB")
    return int(float(match[1]) * _UNITS[match[2]])


def cache_entries(kinds: Iterable[str] = tuple(KINDS)) -> list[CacheEntry]:
    """Returns the entries of the cache, the least recently used first; what disappears meanwhile is left out."""
    entries = []
    for kind in kinds:
        groups: dict[str, list[Path]] = {}
        for path in _children(cache_folder() / kind):
            name = path.name if path.is_dir() else path.name.lstrip(".").split(".")[0]
            groups.setdefault(name, []).append(path)
        entries += [_entry(kind, name, paths) for name, paths in groups.items()]
    return sorted(entries, key=lambda entry: (entry.last_used, entry.name))


def remove_entry(entry: CacheEntry) -> bool:
    """Removes an entry unless a process uses it; returns whether it was removed.

    Raises:
        OSError: A file cannot be removed.
    """
    with _exclusive(entry) as is_free:
        if is_free:
            for path in entry.paths:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            _lock_path(entry.kind, entry.name).unlink(missing_ok=True)
        return is_free


def enforce_limit() -> None:
    """Removes the least recently used entries until the cache is not larger than its bound.

    Entries that a process uses stay, and so do downloads and models pretrained by nbt, which do not count.

    Raises:
        UsageError: `cache_limit` raises.
    """
    entries, limit = cache_entries(_BOUNDED), cache_limit()
    excess = sum(entry.bytes for entry in entries) - limit
    for entry in entries:
        if excess <= 0:
            return
        try:
            excess -= entry.bytes if remove_entry(entry) else 0
        except OSError as error:
            logger.info("cache: %s %s cannot be removed: %s", entry.kind, entry.name, error)
    if excess > 0:
        logger.info("cache: the entries in use exceed NBT_CACHE_LIMIT by %.1f GB", excess / 1e9)


def _entry(kind: str, name: str, paths: list[Path]) -> CacheEntry:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,))]
    stats = [stat for file in files if (stat := _stat(file)) is not None and not S_ISDIR(stat.st_mode)]
    lock = _stat(_lock_path(kind, name))
    last_used = max((stat.st_mtime for stat in ([lock] if lock else stats)), default=0.0)
    size = sum(stat.st_size for stat in stats)
    return CacheEntry(kind, name, name if kind == "datasets" else _dataset(paths), size, last_used, tuple(paths))


def _dataset(paths: list[Path]) -> str:
    """Returns the dataset that the JSON file of an entry names; "" without one, or for a damaged file."""
    for path in paths:
        if path.suffix == ".json":
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                return str(stored.get("dataset") or stored.get("facts", {}).get("dataset") or "")
            except (OSError, ValueError, AttributeError):
                return ""
    return ""


def _lock_path(kind: str, name: str) -> Path:
    return cache_folder("locks") / f"{kind}-{name}.lock"


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _lock_shared(path: Path) -> int | None:
    """Returns the descriptor of a lock file that is locked with other users; None where files cannot be locked."""
    while sys.platform != "win32":
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:  # a cache that cannot be written, of which nothing is removed either
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_file(descriptor, path):
                return descriptor
        except OSError:  # a file system without locks
            return descriptor
        os.close(descriptor)  # removed since it was opened
    return None


@contextlib.contextmanager
def _exclusive(entry: CacheEntry) -> Iterator[bool]:
    """Yields whether no process uses the entry, and keeps others from using it."""
    if sys.platform == "win32":
        yield True
        return
    lock = _lock_path(entry.kind, entry.name)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = _is_file(descriptor, lock)
        except OSError:
            is_free = False
        yield is_free
    finally:
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    """Returns whether a path still names the opened file."""
    stat = _stat(path)
    return stat is not None and os.path.samestat(stat, os.fstat(descriptor))
