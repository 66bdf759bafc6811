"""Conversion of studies to recorded tables, so that a user's earlier searches serve as experience."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbt.errors import NbtError, UsageError
from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader, describe_dimensions
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import CHECKS, COPIED_TEST_IMAGES
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.study_names import slug

_log = logging.getLogger("nbt")

TABLE_SUFFIX = ".parquet"

# The fields in which tables of one task agree: the compared field, the field shown in messages, and, for fingerprints,
# a description of their content. `RecordedTable.check_space` compares the dimensions, some of which a table may lack.
_TASK_FIELDS = (
    ("data_hash", "dataset", "images, labels or split"),
    ("backbone", "backbone", ""),
    ("weights_hash", "weights", "values"),
    ("image_size", "image_size", ""),
    ("epochs", "epochs", ""),
    ("seed", "seed", ""),
    ("classes", "classes", ""),
    ("shots", "shots", ""),
    ("watched", "watched", ""),
)
_FIELD_LABELS = {"image_size": "image size", "watched": "number of test images"}


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The result of converting studies to tables.

    Attributes:
        tables: Path of each written file -> its table.
        left_out: Name of each study without a table -> reason.
    """

    tables: Mapping[Path, RecordedTable]
    left_out: Mapping[str, str]


def table_from_study(record: StudyRecord, space: Space) -> RecordedTable:
    """Converts the complete trials of a study, of any length, to a recorded table.

    Diverged trials are included. Pruned, failed and running trials are not, nor are the final runs, as their
    train/validation splits differ. The table contains no test accuracies and no absolute paths.

    Args:
        record: The record of the study.
        space: The space of the table, which must be able to express all settings. It may differ from the space that was
            searched, so that studies from before a dimension was added can be used.

    Raises:
        UsageError: No trial is complete, the space cannot express a trial, or the study is one of streams of
            tasks.
    """
    name = record.config.name
    if record.config.scenario is not None:
        raise UsageError(
            f"study {name}: its trials are streams of tasks, but recorded tables need single tasks; omit the study"
        )
    others = sum(bool(trial.settings.backbone) for trial in record.trials)
    if others:
        _log.warning(
            "study %s: %d trials of other backbones than %s are left out", name, others, record.config.backbone
        )
    trials = [trial for trial in record.trials if _is_recordable(trial)]
    if not trials:
        raise UsageError(
            f"study {name}: no trial is complete yet, so there is nothing to record; continue it with a larger --budget"
        )
    for trial in trials:
        _check_trial(trial, record, space)
    runs = [
        RecordedRun(
            setting=0,
            seed=0,
            origin=f"study: {name}",
            settings=trial.settings,
            curve=trial.curve,
            setup_seconds=float(trial.facts.get("setup_seconds") or 0.0),
        )
        for trial in trials
    ]
    return RecordedTable(_make_header(record, space), _number_runs(runs), f"study {name}")


def merge_tables(tables: Sequence[RecordedTable]) -> RecordedTable:
    """Merges tables of the same task into one.

    Settings are numbered in the order of their first run, and repetitions of a setting by their seeds. Equal runs are
    included once: studies with the same seed start with the same trials, and a study may be recorded again later.

    Args:
        tables: At least one table. Header and facts are taken from the last one, the profile from the last one that has
            one.

    Raises:
        UsageError: The tables belong to different tasks; the message names each difference.
    """
    last = tables[-1]
    for table in tables:
        differences = list(_differences(table.header, last.header))
        if differences:
            raise UsageError(f"{table.source} and {last.source} belong to different tasks: {'; '.join(differences)}")
    profile = next((table.header.profile for table in reversed(tables) if table.header.profile is not None), None)
    header = dataclasses.replace(last.header, profile=profile)
    return RecordedTable(header, _number_runs(run for table in tables for run in table.runs), last.source)


def is_output_folder(out: str | Path) -> bool:
    """Returns whether `out` is a folder for tables, one file per task, rather than a single file.

    Raises:
        UsageError: `out` is neither a folder nor the name of a Parquet file.
    """
    path = Path(out)
    if path.suffix == TABLE_SUFFIX and not path.is_dir():
        return False
    if path.is_file() or (path.suffix and not path.is_dir()):
        raise UsageError(
            f"--out {out}: give a folder for one table per task, or a file TABLE{TABLE_SUFFIX} for a single task"
        )
    return True


def write_tables(tables: Sequence[RecordedTable], out: str | Path, space: Space) -> dict[Path, RecordedTable]:
    """Writes the tables of studies, merged by task, and returns the tables that the files now contain.

    The runs of existing files are kept. Nothing is written unless all checks succeed.

    Args:
        tables: Tables returned by `table_from_study`.
        out: A file for tables of a single task, or a folder, in which the file names identify the tasks.
        space: Space of the tables.

    Raises:
        UsageError: Tables of several tasks would go to one file, or an existing file has another task or space.
        NbtError: The files cannot be written.
    """
    groups = (
        _group_by_file(tables, Path(out)) if is_output_folder(out) else {Path(out): _check_single_task(tables, out)}
    )
    merged = {path: _merge_with_existing(path, group, space) for path, group in groups.items()}
    for path, table in merged.items():
        try:
            table.save(path)
        except OSError as error:
            raise NbtError(f"{path}: cannot write the table ({error.strerror or error})") from error
    return {path: RecordedTable.load(path) for path in merged}


def _is_recordable(trial: TrialRecord) -> bool:
    """Returns whether a trial of the backbone of its study is complete or diverged."""
    if trial.settings.backbone or trial.state != "complete":
        return False
    return trial.diverged or len(trial.curve) == trial.settings.epochs


def _check_trial(trial: TrialRecord, record: StudyRecord, space: Space) -> None:
    """Raises UsageError if the space cannot express the settings of a trial."""
    try:
        space.params(trial.settings)
    except UsageError as error:
        raise UsageError(
            f"study {record.config.name}: space {space.name} cannot express trial {trial.number} ({error}); the study "
            f"searched {record.config.space} as it was at that time: give a space that has such settings with --space"
        ) from error


def _make_header(record: StudyRecord, space: Space) -> TableHeader:
    config = record.config
    names = {"dataset": Path(config.dataset).name, "weights": Path(config.weights).name}
    shared = ("backbone", "data_hash", "weights_hash", "image_size", "classes", "shots", "epochs", "seed")
    values: dict[str, Any] = names | {name: getattr(config, name) for name in shared}
    profile = record.profile
    return TableHeader(
        **values,
        dimensions=describe_dimensions(space),
        # Without the examples of the checks, which name files.
        facts={name: value for name, value in record.dataset.items() if name not in (CHECKS, COPIED_TEST_IMAGES)},
        watched=0,
        profile=None if profile is None else {**profile, "facts": {**profile["facts"], **names}},
    )


def _number_runs(runs: Iterable[RecordedRun]) -> tuple[RecordedRun, ...]:
    """Returns the distinct runs with new numbers of settings and seeds."""
    runs_by_settings: dict[TransferSettings, dict[bytes, RecordedRun]] = {}
    for run in runs:
        runs_by_settings.setdefault(run.settings, {}).setdefault(_fingerprint(run), run)
    return tuple(
        dataclasses.replace(run, setting=setting, seed=seed)
        for setting, repetitions in enumerate(runs_by_settings.values())
        for seed, run in enumerate(repetitions.values())
    )


def _fingerprint(run: RecordedRun) -> bytes:
    """Returns a key for comparing curves in the precision of a table; durations are ignored."""
    rows = [(epoch.train_loss, epoch.val_loss, epoch.val_accuracy) for epoch in run.curve]
    return np.array(rows, dtype=np.float32).tobytes()


def _differences(first: TableHeader, second: TableHeader) -> Iterable[str]:
    """Yields the differences between the tasks of two tables, as clauses."""
    for key, shown, content in _TASK_FIELDS:
        if getattr(first, key) == getattr(second, key):
            continue
        label, values = _FIELD_LABELS.get(shown, shown), [getattr(header, shown) for header in (first, second)]
        if content and values[0] == values[1]:
            yield f"{label} {values[0]} with different {content}"
        else:
            yield f"{label} {' and '.join('not given' if value is None else str(value) for value in values)}"


def _check_single_task(tables: Sequence[RecordedTable], out: str | Path) -> list[RecordedTable]:
    """Returns the tables, or raises UsageError if they belong to different tasks."""
    try:
        merge_tables(tables)
    except UsageError as error:
        raise UsageError(f"--out {out}: {error}; give studies of a single task, or a folder for --out") from error
    return list(tables)


def _group_by_file(tables: Sequence[RecordedTable], folder: Path) -> dict[Path, list[RecordedTable]]:
    groups: dict[Path, list[RecordedTable]] = {}
    for table in tables:
        groups.setdefault(folder / _file_name(table.header), []).append(table)
    return groups


def _file_name(header: TableHeader) -> str:
    """Returns a readable file name that is unique to the task."""
    key = json.dumps([getattr(header, name) for name, _, _ in _TASK_FIELDS])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{slug(f'{Path(header.dataset).stem}-{header.backbone}')[:80]}-{digest}{TABLE_SUFFIX}"


def _merge_with_existing(path: Path, tables: Sequence[RecordedTable], space: Space) -> RecordedTable:
    """Returns the tables merged with the runs of an existing file."""
    if not path.exists():
        return merge_tables(tables)
    existing = RecordedTable.load(path)
    try:
        existing.check_space(space)
        return merge_tables([existing, *tables])
    except UsageError as error:
        raise UsageError(f"{error}; give another --out") from error
