"""Searches of a replay in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")

_worker_search: list[Callable[[Any], Any]] = []  # set in worker processes only


def run_searches(search: Callable[[Key], Result], keys: Sequence[Key], workers: int) -> Iterator[tuple[Key, Result]]:
    """Runs the searches and yields the key and the result of each one as it finishes.

    Args:
        search: Function that runs the search of a key. Workers receive it once; it must be picklable.
        keys: Keys of the searches.
        workers: Number of processes; 1 runs the searches in this process.
    """
    if workers == 1:
        for key in keys:
            yield key, search(key)
        return
    # Workers are spawned, because forking a process with threads can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_initialise, initargs=(search,)) as pool:
        try:
            futures = {pool.submit(_run_in_worker, key): key for key in keys}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _initialise(search: Callable[[Any], Any]) -> None:
    _worker_search[:] = [search]


def _run_in_worker(key: Any) -> Any:
    return _worker_search[0](key)
