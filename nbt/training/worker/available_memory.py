"""Available memory of the machine or of the container in which the process runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class _CgroupFiles(NamedTuple):
    """Files of the memory controller in one version of Linux control groups."""

    folder: str
    limit: str
    used: str
    cached: str


_CGROUP_V2 = _CgroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = _CgroupFiles(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)


def available_memory(root: Path = Path("/")) -> int:
    """Returns the available memory of the machine or of the container, whichever is less, in bytes.

    Args:
        root: Root of the file system that holds the kernel's files on control groups.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_available_in_cgroups(root)])


def _available_in_cgroups(root: Path) -> Iterator[int]:
    """Yields the available bytes of each control group of this process, and of each parent, that has a limit."""
    for files, group in _cgroup_paths(root):
        mount_point = root / files.folder
        # A container sees its own group as the root, and the path in proc may not exist inside the container.
        for folder in (mount_point / group, *(mount_point / group).parents):
            if folder.is_relative_to(mount_point) and (limit := _read_int(folder / files.limit)) is not None:
                used = _read_int(folder / files.used) or 0
                yield max(0, limit - used + _reclaimable_bytes(folder / "memory.stat", files.cached))


def _cgroup_paths(root: Path) -> Iterator[tuple[_CgroupFiles, str]]:
    """Yields the path of this process's control group for both versions; the root group if the kernel lists none."""
    paths: dict[_CgroupFiles, str] = {}
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths[_CGROUP_V1 if controllers else _CGROUP_V2] = path.lstrip("/")
    for files in (_CGROUP_V2, _CGROUP_V1):
        yield files, paths.get(files, "")


def _reclaimable_bytes(path: Path, name: str) -> int:
    """Returns the bytes of cached files, which count as used although the kernel can reclaim them."""
    for line in _read_text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _read_int(path: Path) -> int | None:
    """Returns the number in a file; None if the file is missing or holds other text, such as "max"."""
    text = _read_text(path).strip()
    return int(text) if text.isdecimal() else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
