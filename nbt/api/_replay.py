"""Comparison of search methods on recorded learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.data.output_place import check_outside_class_folders
from nbt.paths import check_writable_folder

if TYPE_CHECKING:
    from nbt.tuning.benchmark.curves.replay import CurveReplayResult
    from nbt.tuning.benchmark.results import ReplayResult

SHIPPED = "shipped"
"""Name of the recorded tables that come with nbt, as the experience of a replay."""


def replay(
    tables: Sequence[str | Path],
    *,
    methods: Sequence[str] = (),
    seeds: int = 20,
    budget: int = 60,
    space: str | Path = "non_binary",
    experience: str | Path | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Compares search methods on recorded tasks; of the experience, a method sees only the tables of other datasets.

    Args:
        tables: Files of recorded tables, see `record`.
        methods: Names of the methods, see `nbt.tuning.benchmark.methods`; all but the ablations when empty.
        seeds: Number of searches per method and task.
        budget: Training epochs of a search in full trials; at most the number of settings of a table.
        space: Name or file of the search space.
        experience: Folder of recorded tables from which methods may learn, or "shipped" for those that come with nbt;
            `tables` when None.
        workers: Number of processes.
        out: Folder for the tables (CSV) and the figure; None writes no files.
        on_progress: Called as on_progress(finished searches, all searches).

    Raises:
        UsageError: A table cannot be read or belongs to another space, or a method is unknown.
        NbtError: The folder cannot be written.
    """
    from nbt.tuning.benchmark.runner import replay as run
    from nbt.tuning.experience.folder import load_experience
    from nbt.tuning.experience.recorded_table import RecordedTable
    from nbt.tuning.space.space import Space

    if out is not None:
        check_writable_folder("--out", out)
        check_outside_class_folders("--out", out)
    searched = Space.load(space)
    known = None if experience is None else load_experience(None if experience == SHIPPED else experience, searched)
    result = run(
        [RecordedTable.load(table) for table in tables],
        space=searched,
        experience=known,
        methods=methods,
        seeds=seeds,
        budget=budget,
        workers=workers,
        on_progress=on_progress,
    )
    if out is not None:
        from nbt.report.benchmark import write_benchmark

        write_benchmark(result, out)
    return result


def replay_curves(
    tables: Sequence[str | Path],
    *,
    metric: str,
    judge: str,
    minimize: bool = False,
    initial: bool = False,
    methods: Sequence[str] = (),
    seeds: int = 20,
    budget: int = 60,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> CurveReplayResult:
    """Compares search methods on generic tables of learning curves, without images, fit profile and priors.

    Args:
        tables: Parquet files, see `nbt.tuning.benchmark.curves.table.load_curve_task`, which explains the next four.
        metric: Name of the curve that a search sees.
        judge: Name of the curve that judges a search.
        minimize: Whether smaller values of both are better.
        initial: Whether the first value of each curve was measured before training.
        methods: Names of the methods, see `nbt.tuning.benchmark.curves.methods`; all when empty.
        seeds: Number of searches per method and task.
        budget: Epochs of a search in full runs.
        workers: Number of processes.
        on_progress: Called as on_progress(finished searches, all searches).

    Raises:
        UsageError: A table cannot be used, or a method is unknown.
    """
    from nbt.tuning.benchmark.curves.replay import replay_curves as run
    from nbt.tuning.benchmark.curves.table import load_curve_task

    tasks = [load_curve_task(table, metric=metric, judge=judge, minimize=minimize, initial=initial) for table in tables]
    return run(tasks, methods=methods, seeds=seeds, budget=budget, workers=workers, on_progress=on_progress)
