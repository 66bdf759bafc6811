"""Memory of the machine: how much of it this process may still take, where it runs in a container, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _Files(NamedTuple):
    """Where one version of the kernel's control groups keeps its numbers."""

    folder: str
    limit: str
    used: str
    cached: str


_V2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Files("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of memory that are free now, of the machine or of the container, whichever are fewer.

    Args:
        root: The root of the file system in which the kernel tells of control groups.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_left(root)])


def _left(root: Path) -> Iterator[int]:
    """Yields what each control group of this process, and each above it, may still take, where it has a limit."""
    for files, group in _groups(root):
        place = root / files.folder
        # A container sees its own group as the topmost one, and may be told of a path that it does not see.
        for folder in (place / group, *(place / group).parents):
            if folder.is_relative_to(place) and (limit := _number(folder / files.limit)) is not None:
                used = _number(folder / files.used) or 0
                yield max(0, limit - used + _cached(folder / "memory.stat", files.cached))


def _groups(root: Path) -> Iterator[tuple[_Files, str]]:
    """Yields the path of this process's control group, of both versions; the topmost where the kernel tells none."""
    paths: dict[_Files, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths[_V1 if controllers else _V2] = path.lstrip("/")
    for files in (_V2, _V1):
        yield files, paths.get(files, "")


def _cached(path: Path, name: str) -> int:
    """Returns the bytes of files that count as used and that the kernel gives back for the asking."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """Returns the number that a file holds; None where there is no file, or another word ("max")."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
