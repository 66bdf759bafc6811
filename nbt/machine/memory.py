"""Available memory of the machine or of the container in which the process runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nbt.machine.cgroups import controller_folders, read_int, read_text

# By version of control groups: files of limit and use, and the entry of memory.stat for cached files.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_memory(root: Path = Path("/")) -> int:
    """Returns the available memory of the machine or of the container, whichever is less, in bytes.

    Args:
        root: Root of the file system that holds the kernel's files on memory and control groups.
    """
    return min([_available_on_machine(root), *_available_in_cgroups(root)])


def _available_on_machine(root: Path) -> int:
    """Returns the memory that programs can get without swapping: free memory and cached files."""
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available_in_cgroups(root: Path) -> Iterator[int]:
    """Yields the available bytes of each control group of this process, and of each parent, that has a limit."""
    for version, folder in controller_folders("memory", ["memory"], root):
        limit_file, used_file, cached_name = _FILES[version]
        if (limit := read_int(folder / limit_file)) is not None:
            used = read_int(folder / used_file) or 0
            yield max(0, limit - used + _reclaimable_bytes(folder / "memory.stat", cached_name))


def _reclaimable_bytes(path: Path, name: str) -> int:
    """Returns the bytes of cached files, which count as used although the kernel can reclaim them."""
    for line in read_text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
