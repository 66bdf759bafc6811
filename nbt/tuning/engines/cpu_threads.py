"""The numbers of threads of workers, and of this process while workers train."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nbt.machine.cores import waiting_environment

# OpenBLAS and MKL read their own variable before that of OpenMP, which PyTorch reads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads(threads: int) -> int:
    """Returns a worker's number of threads: `threads`, or the user's OMP_NUM_THREADS if it is lower; at least 1."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdecimal() and int(requested) > 0:
        threads = min(threads, int(requested))
    return max(1, threads)


def thread_environment(threads: int) -> dict[str, str]:
    """Returns the environment variables of a worker process that limit its threads and let idle ones sleep early.

    Args:
        threads: Number of threads, 1 or more. A lower number that the user has set for a library is kept, and so is the
            user's way of waiting.
    """
    environment = waiting_environment()
    for name in _THREAD_VARIABLES:
        value = os.environ.get(name, "")
        lower = value.isdecimal() and 0 < int(value) < threads
        environment[name] = value if lower else str(threads)
    return environment


@contextmanager
def single_threaded(*, trains: bool = False) -> Iterator[None]:
    """Limits the numerical libraries of this process to one thread.

    For use while workers have the cores, and for matrices of a few hundred rows, as those of the surrogate: there,
    threads wait for each other for most of the time wherever another process runs.

    Args:
        trains: Whether this process trains, too: only the libraries of NumPy and SciPy are limited then.
    """
    import scipy.linalg  # noqa: F401 - only libraries that are loaded are limited, and SciPy has its own
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas" if trains else None):
        yield
