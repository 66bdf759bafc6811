"""Processor cores that this process may use, and how its libraries' threads wait for work."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nbt.machine.cgroups import controller_folders, read_int, read_text

# How often an idle thread of GNU OpenMP looks for work before it sleeps; the library's default is 300,000. Measured
# with two threads on two cores, seconds per epoch, alone and beside a competing process: default 2.7 and more than 60,
# this number 2.8 and 16, 5000 3.0 and 8.5. OMP_WAIT_POLICY=PASSIVE took 4.5 alone, a
# count of 0 took 6.0 beside one.
_SPIN_COUNT = "20000"


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


def waiting_environment() -> dict[str, str]:
    """Returns the environment variable that makes idle threads of OpenMP sleep early; empty if the user has set one.

    Where other programs use the cores, threads that spin for long keep the thread that they wait for from running.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return {}
    return {"GOMP_SPINCOUNT": _SPIN_COUNT}


def limit_spinning() -> None:
    """Makes idle threads of this process sleep early; without effect once torch is imported."""
    if "torch" not in sys.modules:
        os.environ.update(waiting_environment())
