"""Runs search methods on recorded tasks, every method with the same seeds, and collects how they did."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product

import optuna

from nbt.errors import UsageError, require_positive
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.benchmark.ground_truth import estimate_ground_truth
from nbt.tuning.benchmark.in_memory_store import InMemoryStudyStore, replay_study_config
from nbt.tuning.benchmark.methods import SearchContext, SearchMethod, get_method, leave_dataset_out, method_names
from nbt.tuning.benchmark.nearest_sampler import NearestRecordedSampler
from nbt.tuning.benchmark.results import ReplayResult, TaskResult
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial, ReplayEngine
from nbt.tuning.benchmark.tabular import CandidatePool, TabularBenchmark
from nbt.tuning.budget import Budget
from nbt.tuning.controller import SearchController
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.space import Space

DEFAULT_BUDGET = 60
DEFAULT_SEEDS = 20


@dataclass(frozen=True, eq=False)
class _ReplayTask:
    """One recorded task with what methods may know when they are evaluated on it."""

    benchmark: TabularBenchmark
    experience: Sequence[RecordedTable]
    budget: int


_SearchKey = tuple[int, str, int]
_worker_tasks: list[_ReplayTask] = []  # of a worker process


def replay(
    tables: Sequence[RecordedTable],
    *,
    space: Space,
    methods: Sequence[str] = (),
    seeds: int = DEFAULT_SEEDS,
    budget: int = DEFAULT_BUDGET,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Runs every method with every seed on every task; the same arguments give the same result.

    Args:
        tables: The recorded tasks. What a method may know of the others: `leave_dataset_out`.
        space: What is searched.
        methods: Names; all but the ablations when empty.
        seeds: Searches of each method on each task.
        budget: Full trials' worth of epochs of a search; at most as many as the table has settings.
        workers: Processes.
        on_progress: Called with the number of searches that are done, and of all.

    Raises:
        UsageError: A table cannot be used, or a method is unknown.
    """
    names = tuple(methods) or method_names(ablations=False)
    for name in names:
        get_method(name)
    if not tables:
        raise UsageError("no recorded tables to replay")
    require_positive(seeds=seeds, budget=budget, workers=workers)
    tasks = [_task(table, tables, space, budget) for table in tables]
    truths = [estimate_ground_truth(task.benchmark) for task in tasks]
    search_keys = list(product(range(len(tasks)), names, range(seeds)))
    played: dict[_SearchKey, Sequence[ReplayedTrial]] = {}
    for done, (search_key, trials) in enumerate(_run(tasks, search_keys, min(workers, len(search_keys))), 1):
        played[search_key] = trials
        if on_progress is not None:
            on_progress(done, len(search_keys))
    results = [
        TaskResult.from_trials(
            task.benchmark,
            truth,
            horizon=task.budget * task.benchmark.length,
            experience=[table.header.name for table in task.experience],
            played={name: [played[index, name, seed] for seed in range(seeds)] for name in names},
        )
        for index, (task, truth) in enumerate(zip(tasks, truths, strict=True))
    ]
    return ReplayResult(tuple(results), {name: get_method(name).description for name in names}, seeds)


def replay_search(
    benchmark: TabularBenchmark,
    method: SearchMethod,
    *,
    experience: Sequence[RecordedTable] = (),
    seed: int = 0,
    budget: int,
) -> list[ReplayedTrial]:
    """Runs one search of a method on a recorded task, by the controller that runs live.

    Args:
        catalogue: Of the task.
        method: Who searches.
        experience: Tables that it may know.
        seed: Of the search.
        budget: Full trials' worth of epochs.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # at INFO it tells of every study that is made
    header, space, pool = benchmark.header, benchmark.space, CandidatePool(benchmark)
    recorded = [setting.settings for setting in benchmark.settings]
    known = SearchContext(header=header, space=space, experience=experience, seed=seed, settings=recorded)
    components = method.build(known)
    engine = ReplayEngine(pool, seed)
    first = [(name, settings) for name, settings in baseline_recipes(benchmark.length) if settings in benchmark.index]
    controller = SearchController(
        InMemoryStudyStore(replay_study_config(header, space, seed), dict(header.facts)),
        space,
        budget=Budget.parse(budget),
        pruner=components.pruner,
        sampler=lambda sampler_seed: NearestRecordedSampler(components.sampler(sampler_seed), pool),
        first=first if method.runs_baselines else (),
        recommended=components.first,
        clock=engine.clock,
    )
    engine.run(controller)
    controller.close()
    return engine.trials


def _task(table: RecordedTable, tables: Sequence[RecordedTable], space: Space, budget: int) -> _ReplayTask:
    benchmark = TabularBenchmark(table, space)
    return _ReplayTask(benchmark, leave_dataset_out(tables, table), min(budget, len(benchmark.settings)))


def _run(
    tasks: list[_ReplayTask], search_keys: Sequence[_SearchKey], workers: int
) -> Iterator[tuple[_SearchKey, Sequence[ReplayedTrial]]]:
    """Yields every search_key with its trials, as they end."""
    if workers == 1:
        for search_key in search_keys:
            yield search_key, _run_job(tasks, search_key)
        return
    # A fresh process each: a fork of one that has threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_initialise_worker, initargs=(tasks,)) as pool:
        try:
            waiting = {pool.submit(_run_job_in_worker, search_key): search_key for search_key in search_keys}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_job(tasks: Sequence[_ReplayTask], search_key: _SearchKey) -> list[ReplayedTrial]:
    index, name, seed = search_key
    task = tasks[index]
    return replay_search(task.benchmark, get_method(name), experience=task.experience, seed=seed, budget=task.budget)


def _initialise_worker(tasks: list[_ReplayTask]) -> None:
    _worker_tasks[:] = tasks


def _run_job_in_worker(search_key: _SearchKey) -> list[ReplayedTrial]:
    return _run_job(_worker_tasks, search_key)
