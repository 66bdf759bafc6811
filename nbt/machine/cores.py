"""Processor cores that this process may use, and how its libraries' threads wait for work."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nbt.machine.cgroups import controller_folders, read_int, read_text

_WAIT_POLICY = "OMP_WAIT_POLICY"


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may use: those it may run on, or the container's quota if lower.

    A quota is rounded down, and at least 1.

    Args:
        root: Root of the file system that holds the kernel's files on control groups.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([allowed, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quota of each control group of this process, and of each parent, that has one, in cores."""
    for version, folder in controller_folders("cpu", ["cpu", "cpu,cpuacct", "cpuacct,cpu"], root):
        if version == 2:
            words = read_text(folder / "cpu.max").split()
            quota, period = ([int(word) if word.isdecimal() else None for word in words] + [None, None])[:2]
        else:
            quota, period = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period


def let_idle_threads_sleep() -> None:
    """Makes idle threads of OpenMP sleep instead of spinning; without effect once torch is imported.

    Where other programs use the cores, spinning threads keep the thread that they wait for from running. A value that
    the user has set is kept.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(_WAIT_POLICY, "PASSIVE")
