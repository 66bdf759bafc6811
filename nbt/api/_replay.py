"""Comparison of search methods on recorded learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.paths import check_writable_folder

if TYPE_CHECKING:
    from nbt.tuning.benchmark.results import ReplayResult


def replay(
    tables: Sequence[str | Path],
    *,
    methods: Sequence[str] = (),
    seeds: int = 20,
    budget: int = 60,
    space: str | Path = "non_binary",
    workers: int = 1,
    out: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Compares search methods on recorded tasks; a method sees only the tables of other datasets as experience.

    Args:
        tables: Files of recorded tables, see `record`.
        methods: Names of the methods, see `nbt.tuning.benchmark.methods`; all but the ablations when empty.
        seeds: Number of searches per method and task.
        budget: Training epochs of a search in full trials; at most the number of settings of a table.
        space: Name or file of the search space.
        workers: Number of processes.
        out: Folder for the tables (CSV) and the figure; None writes no files.
        on_progress: Called as on_progress(finished searches, all searches).

    Raises:
        UsageError: A table cannot be read or belongs to another space, or a method is unknown.
        NbtError: The folder cannot be written.
    """
    from nbt.tuning.benchmark.runner import replay as run
    from nbt.tuning.experience.recorded_table import RecordedTable
    from nbt.tuning.space.space import Space

    if out is not None:
        check_writable_folder("--out", out)
    searched = Space.load(space)
    result = run(
        [RecordedTable.load(table) for table in tables],
        space=searched,
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
