"""Experience: recording what settings reach on a task, for replay and for the priors of later searches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.api._load_task import TaskOptions, load_task
from nbt.errors import UsageError, require_positive
from nbt.paths import check_writable_file
from nbt.progress import Progress

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader
    from nbt.tuning.experience.study_tables import StudyTables
    from nbt.tuning.space.space import Space

_log = logging.getLogger("nbt")

MAX_MONITORED_IMAGES = 750


def record(
    dataset: str | Path,
    *,
    trials: int,
    out: str | Path,
    space: str | Path = "non_binary",
    epochs: int = 12,
    workers: int = 1,
    on_run: Callable[[RecordedRun, int, int], None] | None = None,
    **options: Unpack[TaskOptions],
) -> RecordedTable:
    """Trains random settings of a space to full length, every tenth with two seeds, and writes their curves.

    The same call again continues what was interrupted, or extends it to more trials. Every epoch is also evaluated
    on test images, at most 750 of them, for the benchmark alone. The fit profile is kept with the curves.

    Args:
        dataset: See `nbt.api.load_task`.
        trials: Number of settings, anchors included.
        out: The table, a Parquet file; while it grows its runs are kept in a journal beside it.
        space: Name or file of the search space.
        epochs: Length of every run.
        workers: Runs at a time.
        on_run: Called after every run with it, the number of runs that are there, and how many there will be.
        **options: Of the task.

    Raises:
        UsageError: Something given is wrong, or `out` holds a recording of something else.
        NbtError: Three runs in a row failed alike; what was recorded is kept.
    """
    from nbt.tuning.engines.local import LocalEngine
    from nbt.tuning.experience.recording import Journal, Recording, plan_runs
    from nbt.tuning.space.applicability import applicable_space
    from nbt.tuning.space.space import Space

    chosen, path = Space.load(space), Path(out)
    if path.suffix != ".parquet":
        raise UsageError(f"--out {out}: the name of a recorded table ends in .parquet")
    check_writable_file("--out", path)
    require_positive(trials=trials, epochs=epochs, workers=workers)
    task = monitor_test_images(load_task(dataset, **options))
    chosen = applicable_space(chosen, task)
    header = make_table_header(task, chosen, epochs)
    journal = Journal(path, header)
    planned = plan_runs(chosen, trials, epochs=epochs, seed=task.seed)
    with LocalEngine(task, workers=workers) as engine:
        engine.run(Recording(planned, journal, on_run))
    return journal.close(dataclasses.replace(header, profile=_measure_profile(task, options.get("progress"))))


def _measure_profile(task: Task, progress: Progress | None) -> dict[str, Any] | None:
    """Returns the fit profile of a task without paths of this machine, None where it cannot be measured."""
    from nbt.fit import profile_fit

    try:
        profile = profile_fit(task, progress=progress)
    except ValueError:  # too few images
        return None
    return profile.with_facts(dataset=Path(task.dataset).name, weights=Path(task.weights).name).to_dict()


def monitor_test_images(task: Task) -> Task:
    """Returns the task with a fixed draw of at most `MAX_MONITORED_IMAGES` test images watched."""
    import numpy as np

    test = task.split.test
    if len(test) > MAX_MONITORED_IMAGES:
        test = np.sort(np.random.default_rng(0).choice(test, MAX_MONITORED_IMAGES, replace=False))
    return dataclasses.replace(task, watched=test)


def make_table_header(task: Task, space: Space, epochs: int) -> TableHeader:
    """Returns the header of a recording of a task; paths of the machine it is made on stay out of it."""
    from nbt.models.weights import hash_weights
    from nbt.task.summary import dataset_summary
    from nbt.tuning.experience.recorded_table import TableHeader, describe_dimensions

    values: dict[str, Any] = {name: getattr(task, name) for name in ("image_size", "classes", "shots", "seed")}
    return TableHeader(
        dataset=Path(task.dataset).name,
        backbone=task.backbone.text,
        weights=Path(task.weights).name,
        data_hash=task.fingerprint,
        weights_hash=hash_weights(task.w0),
        epochs=epochs,
        dimensions=describe_dimensions(space),
        facts=dataset_summary(task),
        watched=0 if task.watched is None else len(task.watched),
        **values,
    )


def record_studies(
    studies: Sequence[str] = (),
    *,
    out: str | Path,
    storage: str | None = None,
    space: str | Path = "non_binary",
) -> StudyTables:
    """Turns the full-length trials of finished studies into recorded tables, without training anything.

    Studies of one task share a table, and a table that is there already keeps its runs, so that experience grows. The
    same call again changes nothing. See `nbt.tuning.experience.study_tables.table_from_study` for what enters a table.

    Args:
        studies: Their names; all of the storage when empty, where those that give no table are named and left out.
        out: A file for studies of one task, or a folder, which then gets one table a task.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        space: Name or file of the space that the tables are of; it has to express the settings of every trial.

    Raises:
        UsageError: There is no such study, one of those given has no full-length trial or is none of the space, or
            `out` is for another task.
        NbtError: A file cannot be written.
    """
    from nbt.tuning.experience.study_tables import StudyTables, is_output_folder, table_from_study, write_tables
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.database import sqlite_file
    from nbt.tuning.storage.studies import list_studies, read_study, resolve_storage

    chosen, url = Space.load(space), resolve_storage(storage)
    is_output_folder(out)
    names = list(dict.fromkeys(studies)) or [summary.name for summary in reversed(list_studies(url))]
    tables: list[RecordedTable] = []
    left_out: dict[str, str] = {}
    for name in names:
        record = read_study(url, name)
        try:
            tables.append(table_from_study(record, chosen))
        except UsageError as error:
            if studies:
                raise
            left_out[name] = str(error)
            _log.warning("left out: %s", error)
    if not tables:
        reason = "; ".join(left_out.values()) or "there are no studies yet; nbt search makes one"
        raise UsageError(f"nothing to record in {sqlite_file(url) or 'this storage'}: {reason}")
    return StudyTables(write_tables(tables, out, chosen), left_out)
