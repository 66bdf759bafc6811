"""Recording of learning curves as experience, for replay and for the priors of later searches."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.api._load_task import TaskOptions, callback_of, load_task, refuse_source_data
from nbt.errors import UsageError, nearest, require_positive
from nbt.option import AUTO
from nbt.paths import absolute_path, check_outside, check_writable_file
from nbt.progress import Progress
from nbt.search_config import check_workers

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.engines.base import Engine
    from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader
    from nbt.tuning.experience.recording import Journal
    from nbt.tuning.experience.study_tables import StudyTables
    from nbt.tuning.space.space import Space

    OnRun = Callable[[RecordedRun, int, int], None]

_log = logging.getLogger("nbt")

RANDOM, INFORMED = DESIGNS = ("random", "informed")
"""Designs of a recording."""

MAX_MONITORED_IMAGES = 750
"""Maximum number of test images that a recording evaluates per epoch."""


def record(
    dataset: str | Path,
    *,
    trials: int,
    out: str | Path,
    space: str | Path = "non_binary",
    epochs: int = 12,
    design: str = RANDOM,
    workers: int | str = AUTO,
    on_run: OnRun | None = None,
    **options: Unpack[TaskOptions],
) -> RecordedTable:
    """Trains the baseline recipes and other settings of a space to full length, and records their learning curves.

    Every tenth setting is trained with two seeds. The same call resumes an interrupted recording; a call with more
    trials extends it. Every epoch is also evaluated on at most 750 test images, which only the benchmark reads. The
    table contains the fit profile as well.

    Args:
        dataset: Dataset as in `nbt.api.load_task`.
        trials: Number of settings, including the baseline recipes.
        out: File of the table, `.parquet`; finished runs are stored in a journal next to it until the table is written.
        space: Name or file of the search space.
        epochs: Epochs of every run; of the design "informed", those of the baseline recipes and the strata.
        design: "random" for settings drawn from the whole space, "informed" for those of
            `nbt.tuning.experience.informed_design`, which also needs the shipped tables.
        workers: Number of concurrent runs, or "auto"; see `nbt.tuning.engines.worker_count`.
        on_run: Called after every run as on_run(run, stored runs, planned runs).
        **options: Options of the task, see `TaskOptions`.

    Returns:
        The recorded table.

    Raises:
        UsageError: An argument is invalid, or `out` contains a recording of something else.
        NbtError: Three runs in a row failed with the same error; recorded runs stay stored.
    """
    from nbt.tuning.engines.factory import EngineFactory
    from nbt.tuning.experience.recording import Journal
    from nbt.tuning.space.applicability import applicable_space
    from nbt.tuning.space.space import Space

    searched, path = Space.load(space).with_fixed_epochs(), Path(out)
    if path.suffix != ".parquet":
        raise UsageError(f"--out {out}: the name of a recorded table ends in .parquet")
    check_writable_file("--out", path)
    refuse_source_data(options, "recorded tables")
    require_positive(trials=trials, epochs=epochs)
    check_workers(workers)
    if design not in DESIGNS:
        raise UsageError(f"design {design!r}: {nearest(design, DESIGNS)}")
    check_outside("--out", path, absolute_path(dataset))
    task = monitor_test_images(load_task(dataset, **options))
    searched = applicable_space(searched, task)
    header = dataclasses.replace(make_table_header(task, searched, epochs), design=design)
    journal = Journal(path, header)
    with EngineFactory("local", workers, max_runs=trials) as factory:
        engine = factory.make(task, callback_of(options))
        if design == RANDOM:
            _record_random(engine, searched, trials, journal, on_run)
        else:
            _record_informed(engine, searched, trials, journal, on_run)
    return journal.close(dataclasses.replace(header, profile=_measure_profile(task, callback_of(options))))


def _record_random(engine: Engine, space: Space, trials: int, journal: Journal, on_run: OnRun | None) -> None:
    from nbt.tuning.experience.recording import Recording, plan_runs

    planned = plan_runs(space, trials, epochs=journal.header.epochs, seed=journal.header.seed)
    engine.run(Recording(planned, journal, on_run))


def _record_informed(engine: Engine, space: Space, trials: int, journal: Journal, on_run: OnRun | None) -> None:
    """Records block after block, because the settings of a block depend on the results of the ones before it."""
    from nbt.tuning.experience.dataset_names import is_same_dataset
    from nbt.tuning.experience.folder import load_experience
    from nbt.tuning.experience.informed_design import BLOCK_SIZE, InformedDesign
    from nbt.tuning.experience.recording import Recording, n_runs, plan_informed_runs

    header = journal.header
    tables = [table for table in load_experience(None, space) if not is_same_dataset(table.header, header)]
    name = f"{header.name}, {header.image_size} px"
    informed = InformedDesign(space, header.epochs, name, header.seed, tables)
    for start in range(0, trials, BLOCK_SIZE):
        planned = plan_informed_runs(informed, range(start, min(start + BLOCK_SIZE, trials)), journal.runs)
        engine.run(Recording(planned, journal, on_run, n_planned=n_runs(trials)))


def _measure_profile(task: Task, progress: Progress | None) -> dict[str, Any] | None:
    """Returns the fit profile of a task without paths of this machine; None if it cannot be measured."""
    from nbt.fit import profile_fit

    try:
        profile = profile_fit(task, progress=progress)
    except ValueError:  # the task has too few images
        return None
    return profile.with_facts(dataset=Path(task.dataset).name, weights=Path(task.weights).name).to_dict()


def monitor_test_images(task: Task) -> Task:
    """Returns the task with a fixed draw of at most `MAX_MONITORED_IMAGES` test images to evaluate in every epoch."""
    import numpy as np

    test = task.split.test
    if len(test) > MAX_MONITORED_IMAGES:
        test = np.sort(np.random.default_rng(0).choice(test, MAX_MONITORED_IMAGES, replace=False))
    return dataclasses.replace(task, watched=test)


def make_table_header(task: Task, space: Space, epochs: int) -> TableHeader:
    """Returns the header of the recorded table of a task, without paths of this machine."""
    from nbt.task.summary import dataset_summary
    from nbt.tuning.experience.recorded_table import TableHeader, describe_dimensions

    values: dict[str, Any] = {name: getattr(task, name) for name in ("image_size", "classes", "shots", "seed")}
    return TableHeader(
        dataset=Path(task.dataset).name,
        backbone=task.backbone.text,
        weights=Path(task.weights).name,
        data_hash=task.fingerprint,
        weights_hash=task.weights_hash,
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
    """Converts the complete trials of studies into recorded tables, without training.

    Studies of one task share a table. An existing table keeps its runs and receives the new ones, so that a repeated
    call changes nothing. See `nbt.tuning.experience.study_tables.table_from_study` for the trials that are included.

    Args:
        studies: Names of the studies; all studies of the storage when empty, in which case unusable studies are left
            out with a warning.
        out: File for studies of one task, or folder that receives one table per task.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        space: Name or file of the search space of the tables; it must contain the settings of every trial.

    Returns:
        The tables by file, and the reasons why studies were left out.

    Raises:
        UsageError: A study does not exist, a named study has no complete trial or settings outside the space, or
            `out` contains a table of another task.
        NbtError: A file cannot be written.
    """
    from nbt.tuning.experience.study_tables import StudyTables, is_output_folder, table_from_study, write_tables
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.database import sqlite_file
    from nbt.tuning.storage.studies import list_studies, read_study, resolve_storage

    table_space, url = Space.load(space).with_fixed_epochs(), resolve_storage(storage)
    is_output_folder(out)
    names = list(dict.fromkeys(studies)) or [summary.name for summary in reversed(list_studies(url))]
    tables: list[RecordedTable] = []
    left_out: dict[str, str] = {}
    for name in names:
        record = read_study(url, name)
        check_outside("--out", out, record.config.dataset)
        try:
            tables.append(table_from_study(record, table_space))
        except UsageError as error:
            if studies:
                raise
            left_out[name] = str(error)
            _log.warning("left out: %s", error)
    if not tables:
        reason = "; ".join(left_out.values()) or "there are no studies yet; nbt search creates one"
        raise UsageError(f"nothing to record in {sqlite_file(url) or 'this storage'}: {reason}")
    return StudyTables(write_tables(tables, out, table_space), left_out)
