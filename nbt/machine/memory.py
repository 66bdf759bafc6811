"""Total and available memory of the machine or of the container in which the process runs."""

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
    # Free memory and cached files: what programs can get without swapping.
    return min([_on_machine(root, "MemAvailable", "SC_AVPHYS_PAGES"), *_available_in_cgroups(root)])


def total_memory(root: Path = Path("/")) -> int:
    """Returns the memory of the machine, or the limit of the container if that is less, in bytes.

    Args:
        root: As in `available_memory`.
    """
    folders = controller_folders("memory", ["memory"], root)
    limits = [read_int(folder / _FILES[version][0]) for version, folder in folders]
    return min([_on_machine(root, "MemTotal", "SC_PHYS_PAGES"), *(limit for limit in limits if limit is not None)])


def _on_machine(root: Path, name: str, pages: str) -> int:
    """Returns an entry of /proc/meminfo in bytes; without it, the pages that `os.sysconf` knows by another name."""
    for line in read_text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


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
