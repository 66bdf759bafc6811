"""Runs search methods on recorded tasks, every method with the same seeds, and collects the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import optuna

from nbt.errors import UsageError, require_positive
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.benchmark.ground_truth import estimate_ground_truth
from nbt.tuning.benchmark.in_memory_store import InMemoryStudyStore, replay_study_config
from nbt.tuning.benchmark.methods import SearchContext, SearchMethod, get_method, leave_dataset_out, method_names
from nbt.tuning.benchmark.nearest_sampler import NearestRecordedSampler
from nbt.tuning.benchmark.processes import run_searches
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
    """A recorded task, the tables that methods may use on it, and the budget of a search in full trials."""

    benchmark: TabularBenchmark
    experience: Sequence[RecordedTable]
    budget: int


_SearchKey = tuple[int, str, int]  # index of the task, name of the method, seed


def replay(
    tables: Sequence[RecordedTable],
    *,
    space: Space,
    experience: Sequence[RecordedTable] | None = None,
    methods: Sequence[str] = (),
    seeds: int = DEFAULT_SEEDS,
    budget: int = DEFAULT_BUDGET,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Runs every method with every seed on every task; the same arguments give the same result.

    Args:
        tables: Recorded tasks.
        space: Search space.
        experience: Tables that methods may use; `tables` when None. On each task, those of its dataset are left out
            (`leave_dataset_out`).
        methods: Names of the methods; if empty, all but the ablations.
        seeds: Number of searches of each method on each task.
        budget: Epochs of a search in full trials, at most the number of recorded settings.
        workers: Number of processes.
        on_progress: Called with the number of finished searches and the number of all searches.

    Raises:
        UsageError: A table cannot be used, two are of the same task, a method is unknown, or a number is not positive.
    """
    names = tuple(methods) or method_names(ablations=False)
    for name in names:
        get_method(name)
    if not tables:
        raise UsageError("no recorded tables to replay")
    task_names = _task_names(tables)
    require_positive(seeds=seeds, budget=budget, workers=workers)
    known = tables if experience is None else experience
    tasks = [_make_task(table, known, space, budget) for table in tables]
    truths = [estimate_ground_truth(task.benchmark) for task in tasks]
    search_keys = list(product(range(len(tasks)), names, range(seeds)))
    trials_by_search: dict[_SearchKey, Sequence[ReplayedTrial]] = {}
    searches = run_searches(partial(_run_search, tasks), search_keys, min(workers, len(search_keys)))
    for done, (search_key, trials) in enumerate(searches, 1):
        trials_by_search[search_key] = trials
        if on_progress is not None:
            on_progress(done, len(search_keys))
    results = [
        TaskResult.from_trials(
            task.benchmark,
            truth,
            name=task_names[index],
            horizon=task.budget * task.benchmark.length,
            experience=[table.header.name for table in task.experience],
            trials_by_method={name: [trials_by_search[index, name, seed] for seed in range(seeds)] for name in names},
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
    """Runs one search of a method on a recorded task, with the controller of a live search.

    Args:
        benchmark: Benchmark of the task.
        method: Search method.
        experience: Tables that the method may use.
        seed: Seed of the search.
        budget: Epochs of the search in full trials.

    Returns:
        The trials in the order in which they ended.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # at INFO Optuna logs every study that is created
    header, space, pool = benchmark.header, benchmark.space, CandidatePool(benchmark)
    recorded = [setting.settings for setting in benchmark.settings]
    context = SearchContext(header=header, space=space, experience=experience, seed=seed, settings=recorded)
    components = method.build(context)
    engine = ReplayEngine(pool, horizon=budget * benchmark.length, seed=seed)
    baselines = [
        (name, settings) for name, settings in baseline_recipes(benchmark.length) if settings in benchmark.index
    ]
    controller = SearchController(
        InMemoryStudyStore(replay_study_config(header, space, seed), dict(header.facts)),
        space,
        budget=Budget.parse(budget),
        pruner=components.pruner,
        sampler=lambda sampler_seed: NearestRecordedSampler(components.sampler(sampler_seed), pool),
        baselines=baselines if method.runs_baselines else (),
        recommended=components.initial_settings,
        clock=engine.clock,
    )
    engine.run(controller)
    controller.close()
    return engine.trials


def _task_names(tables: Sequence[RecordedTable]) -> list[str]:
    """Returns a name for each task, with the image size where two tables are of the same dataset and backbone.

    Raises:
        UsageError: Two tables have the same image size, too.
    """
    counts = Counter(table.header.name for table in tables)
    found: dict[str, RecordedTable] = {}
    for table in tables:
        name = table.header.name
        if counts[name] > 1:
            name += f", {table.header.image_size} px"
        if name in found:
            raise UsageError(
                f"{found[name].source} and {table.source} are tables of the same task, {name}: replay them one by one"
            )
        found[name] = table
    return list(found)


def _make_task(table: RecordedTable, known: Sequence[RecordedTable], space: Space, budget: int) -> _ReplayTask:
    benchmark = TabularBenchmark(table, space)
    return _ReplayTask(benchmark, leave_dataset_out(known, table), min(budget, len(benchmark.settings)))


def _run_search(tasks: Sequence[_ReplayTask], search_key: _SearchKey) -> list[ReplayedTrial]:
    index, name, seed = search_key
    task = tasks[index]
    return replay_search(task.benchmark, get_method(name), experience=task.experience, seed=seed, budget=task.budget)
