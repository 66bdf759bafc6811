"""Search methods compared on recorded learning curves."""

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
    """Compares search methods on recorded tasks, each method knowing the tables of other datasets only.

    Args:
        tables: Files that `record` wrote.
        methods: Names, see `nbt.tuning.benchmark.methods`; all but the ablations when empty.
        seeds: Searches of each method on each task.
        budget: Full trials' worth of epochs of a search; at most as many as a table has settings.
        space: Name or file of the search space.
        workers: Processes.
        out: Folder for tables (CSV) and figure; None writes none.
        on_progress: Called with the number of searches that are done, and of all.

    Raises:
        UsageError: A table cannot be read or is of another space, or a method is unknown.
        NbtError: The folder cannot be written.
    """
    from nbt.tuning.benchmark.runner import replay as run
    from nbt.tuning.experience.recorded_table import RecordedTable
    from nbt.tuning.space.space import Space

    if out is not None:
        check_writable_folder("--out", out)
    chosen = Space.load(space)
    result = run(
        [RecordedTable.load(table) for table in tables],
        space=chosen,
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
