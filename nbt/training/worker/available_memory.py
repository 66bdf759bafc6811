"""Memory of the machine: how much of it this process may still take, where it runs in a container, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _CgroupFiles(NamedTuple):
    """Where one version of the kernel's control groups keeps its numbers."""

    folder: str
    limit: str
    used: str
    cached: str


_CGROUP_V2 = _CgroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = _CgroupFiles(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)


def available_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of memory that are free now, of the machine or of the container, whichever are fewer.

    Args:
        root: The root of the file system in which the kernel tells of control groups.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_available_in_cgroups(root)])


def _available_in_cgroups(root: Path) -> Iterator[int]:
    """Yields what each control group of this process, and each above it, may still take, where it has a limit."""
    for files, group in _cgroup_paths(root):
        mount_point = root / files.folder
        # A container sees its own group as the topmost one, and may be told of a path that it does not see.
        for folder in (mount_point / group, *(mount_point / group).parents):
            if folder.is_relative_to(mount_point) and (limit := _read_int(folder / files.limit)) is not None:
                used = _read_int(folder / files.used) or 0
                yield max(0, limit - used + _reclaimable_bytes(folder / "memory.stat", files.cached))


def _cgroup_paths(root: Path) -> Iterator[tuple[_CgroupFiles, str]]:
    """Yields the path of this process's control group, of both versions; the topmost where the kernel tells none."""
    paths: dict[_CgroupFiles, str] = {}
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths[_CGROUP_V1 if controllers else _CGROUP_V2] = path.lstrip("/")
    for files in (_CGROUP_V2, _CGROUP_V1):
        yield files, paths.get(files, "")


def _reclaimable_bytes(path: Path, name: str) -> int:
    """Returns the bytes of files that count as used and that the kernel gives back for the asking."""
    for line in _read_text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _read_int(path: Path) -> int | None:
    """Returns the number that a file holds; None where there is no file, or another word ("max")."""
    text = _read_text(path).strip()
    return int(text) if text.isdecimal() else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
