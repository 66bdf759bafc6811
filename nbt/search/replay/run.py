"""Runs search methods on recorded tasks, every method with the same seeds, and collects how they did."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product

import optuna

from nbt.errors import UsageError, check_counts
from nbt.search.anchors import anchors
from nbt.search.brain import Brain
from nbt.search.budget import Budget
from nbt.search.recorded import RecordedTable
from nbt.search.replay.curves import CurvePlayer, PlayedTrial
from nbt.search.replay.memory import MemoryStore, study_config
from nbt.search.replay.methods import Knowledge, Method, get_method, leave_out, method_names
from nbt.search.replay.pool import Catalogue, Pool
from nbt.search.replay.result import ReplayResult, TaskResult
from nbt.search.replay.snap import SnapSampler
from nbt.search.replay.truth import judge
from nbt.search.space import Space

DEFAULT_BUDGET = 60
DEFAULT_SEEDS = 20


@dataclass(frozen=True, eq=False)
class _Task:
    """One recorded task with what methods may know when they are evaluated on it."""

    catalogue: Catalogue
    experience: Sequence[RecordedTable]
    budget: int


_Job = tuple[int, str, int]
_tasks: list[_Task] = []  # of a worker process


def replay(
    tables: Sequence[RecordedTable],
    *,
    space: Space,
    methods: Sequence[str] = (),
    seeds: int = DEFAULT_SEEDS,
    budget: int = DEFAULT_BUDGET,
    workers: int = 1,
    on_replay: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Runs every method with every seed on every task; the same arguments give the same result.

    Args:
        tables: The recorded tasks. What a method may know of the others: `leave_out`.
        space: What is searched.
        methods: Names; all but the ablations when empty.
        seeds: Searches of each method on each task.
        budget: Full trials' worth of epochs of a search; at most as many as the table has settings.
        workers: Processes.
        on_replay: Called with the number of searches that are done, and of all.

    Raises:
        UsageError: A table cannot be used, or a method is unknown.
    """
    names = tuple(methods) or method_names(ablations=False)
    for name in names:
        get_method(name)
    if not tables:
        raise UsageError("no recorded tables to replay")
    check_counts(seeds=seeds, budget=budget, workers=workers)
    tasks = [_task(table, tables, space, budget) for table in tables]
    truths = [judge(task.catalogue) for task in tasks]
    jobs = list(product(range(len(tasks)), names, range(seeds)))
    played: dict[_Job, Sequence[PlayedTrial]] = {}
    for done, (job, trials) in enumerate(_run(tasks, jobs, min(workers, len(jobs))), 1):
        played[job] = trials
        if on_replay is not None:
            on_replay(done, len(jobs))
    results = [
        TaskResult.collect(
            task.catalogue,
            truth,
            horizon=task.budget * task.catalogue.length,
            experience=[table.header.name for table in task.experience],
            played={name: [played[index, name, seed] for seed in range(seeds)] for name in names},
        )
        for index, (task, truth) in enumerate(zip(tasks, truths, strict=True))
    ]
    return ReplayResult(tuple(results), {name: get_method(name).description for name in names}, seeds)


def search_recorded(
    catalogue: Catalogue, method: Method, *, experience: Sequence[RecordedTable] = (), seed: int = 0, budget: int
) -> list[PlayedTrial]:
    """Runs one search of a method on a recorded task, by the brain that runs live.

    Args:
        catalogue: Of the task.
        method: Who searches.
        experience: Tables that it may know.
        seed: Of the search.
        budget: Full trials' worth of epochs.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # at INFO it tells of every study that is made
    header, space, pool = catalogue.header, catalogue.space, Pool(catalogue)
    recorded = [setting.settings for setting in catalogue.settings]
    known = Knowledge(header=header, space=space, experience=experience, seed=seed, settings=recorded)
    searcher = method.build(known)
    player = CurvePlayer(pool, seed)
    first = [(name, settings) for name, settings in anchors(catalogue.length) if settings in catalogue.index]
    brain = Brain(
        MemoryStore(study_config(header, space, seed), dict(header.facts)),
        space,
        budget=Budget.parse(budget),
        pruner=searcher.pruner,
        sampler=lambda sampler_seed: SnapSampler(searcher.sampler(sampler_seed), pool),
        first=first if method.anchors else (),
        recommended=searcher.first,
        clock=player.clock,
    )
    player.run(brain)
    brain.close()
    return player.trials


def _task(table: RecordedTable, tables: Sequence[RecordedTable], space: Space, budget: int) -> _Task:
    catalogue = Catalogue(table, space)
    return _Task(catalogue, leave_out(tables, table), min(budget, len(catalogue.settings)))


def _run(tasks: list[_Task], jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, Sequence[PlayedTrial]]]:
    """Yields every job with its trials, as they end."""
    if workers == 1:
        for job in jobs:
            yield job, _play(tasks, job)
        return
    # A fresh process each: a fork of one that has threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(tasks,)) as pool:
        try:
            waiting = {pool.submit(_play_prepared, job): job for job in jobs}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _play(tasks: Sequence[_Task], job: _Job) -> list[PlayedTrial]:
    index, name, seed = job
    task = tasks[index]
    return search_recorded(task.catalogue, get_method(name), experience=task.experience, seed=seed, budget=task.budget)


def _prepare(tasks: list[_Task]) -> None:
    _tasks[:] = tasks


def _play_prepared(job: _Job) -> list[PlayedTrial]:
    return _play(_tasks, job)
