"""The CPU cores of this process, and the number of threads of a worker."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(threads: int) -> int:
    """Returns a worker's number of threads: `threads`, or the user's OMP_NUM_THREADS if it is lower; at least 1."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdecimal() and int(requested) > 0:
        threads = min(threads, int(requested))
    return max(1, threads)
