"""Studies as recorded tables: what a user's own searches have paid for becomes experience of later ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbt.errors import NbtError, UsageError
from nbt.settings import TransferSettings
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader, describe_dimensions
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.storage.study_names import slug

TABLE_SUFFIX = ".parquet"

# What makes two tables tables of one task: the field, its name for people, and what else differs where the field is
# a fingerprint of it. What was varied is compared by `RecordedTable.check_space`, which lets a table lack dimensions.
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
_FIELD_LABELS = {"image_size": "image size", "watched": "number of test images watched"}


@dataclass(frozen=True, eq=False)
class StudyTables:
    """What became of some studies.

    Attributes:
        tables: Every table that was written, by its file.
        left_out: Name of a study to the reason for which none of its trials is in a table.
    """

    tables: Mapping[Path, RecordedTable]
    left_out: Mapping[str, str]


def table_from_study(record: StudyRecord, space: Space) -> RecordedTable:
    """Returns the full-length trials of a study as a recorded table.

    Diverged trials are results and stay; pruned, failed and running ones do not enter, and neither do the final runs,
    whose train/validation splits are others. Nothing is known of test images. Paths of the machine stay out.

    Args:
        record: The study.
        space: What the table is said to vary; every setting must be one of it. It need not be the space that was
            searched, so that studies from before a dimension was added stay of use.

    Raises:
        UsageError: No trial ran to full length, or one is none of the space; or the study is of streams of tasks, whose
            curves say nothing of single tasks.
    """
    name, length = record.config.name, record.config.epochs
    if record.config.scenario is not None:
        raise UsageError(f"study {name} is of streams of tasks, and recorded tables are of single tasks; leave it out")
    trials = [trial for trial in record.trials if _is_full_length(trial, length)]
    if not trials:
        raise UsageError(
            f"study {name}: no trial ran to full length yet, so there is nothing to record; give it more --budget"
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
    """Returns one table with the runs of several tables of one task.

    Settings are numbered in the order in which they come, repetitions of a setting by their seeds. A run that is there
    twice counts once: studies with one seed begin alike, and a study may be recorded again when it has grown.

    Args:
        tables: One or more; header and facts are the last one's, as is the profile where it has one.

    Raises:
        UsageError: They are of different tasks; the message names each difference.
    """
    last = tables[-1]
    for table in tables:
        differences = list(_differences(table.header, last.header))
        if differences:
            raise UsageError(f"{table.source} and {last.source} are of different tasks: {'; '.join(differences)}")
    profile = next((table.header.profile for table in reversed(tables) if table.header.profile is not None), None)
    header = dataclasses.replace(last.header, profile=profile)
    return RecordedTable(header, _number_runs(run for table in tables for run in table.runs), last.source)


def is_output_folder(out: str | Path) -> bool:
    """Returns whether tables go to a folder (one file a task) and not to one file.

    Raises:
        UsageError: It is the name of neither.
    """
    path = Path(out)
    if path.suffix == TABLE_SUFFIX and not path.is_dir():
        return False
    if path.is_file() or (path.suffix and not path.is_dir()):
        raise UsageError(
            f"--out {out}: give a folder, for one table a task, or a file TABLE{TABLE_SUFFIX} for one task"
        )
    return True


def write_tables(tables: Sequence[RecordedTable], out: str | Path, space: Space) -> dict[Path, RecordedTable]:
    """Writes tables of studies, those of one task merged, and returns what the files hold now.

    A file that exists already keeps its runs. Nothing is written before everything was checked.

    Args:
        tables: From `table_from_study`.
        out: A file for tables of one task, or a folder, where the name of each file says its task.
        space: Of the tables.

    Raises:
        UsageError: A file is for one task alone, or holds the table of another task or space.
        NbtError: The files cannot be written.
    """
    groups = _group_by_file(tables, Path(out)) if is_output_folder(out) else {Path(out): _check_one_task(tables, out)}
    merged = {path: _merge_with_existing(path, group, space) for path, group in groups.items()}
    for path, table in merged.items():
        try:
            table.save(path)
        except OSError as error:
            raise NbtError(f"{path}: cannot write the table ({error.strerror or error})") from error
    return {path: RecordedTable.load(path) for path in merged}


def _is_full_length(trial: TrialRecord, length: int) -> bool:
    return trial.state == "complete" and (trial.diverged or len(trial.curve) == length)


def _check_trial(trial: TrialRecord, record: StudyRecord, space: Space) -> None:
    try:
        space.params(trial.settings)
    except UsageError as error:
        raise UsageError(
            f"study {record.config.name}: trial {trial.number} is none of space {space.name} ({error}); the study "
            f"searched {record.config.space} as it was then: name a space that has such settings with --space"
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
        facts=dict(record.dataset),
        watched=0,
        profile=None if profile is None else {**profile, "facts": {**profile["facts"], **names}},
    )


def _number_runs(runs: Iterable[RecordedRun]) -> tuple[RecordedRun, ...]:
    """Returns the runs with numbers of settings and seeds, none of them twice."""
    alike: dict[TransferSettings, dict[bytes, RecordedRun]] = {}
    for run in runs:
        alike.setdefault(run.settings, {}).setdefault(_fingerprint(run), run)
    return tuple(
        dataclasses.replace(run, setting=setting, seed=seed)
        for setting, repetitions in enumerate(alike.values())
        for seed, run in enumerate(repetitions.values())
    )


def _fingerprint(run: RecordedRun) -> bytes:
    """Returns what tells a run's curve from others, as exactly as a table keeps it; how long it took does not."""
    rows = [(epoch.train_loss, epoch.val_loss, epoch.val_accuracy) for epoch in run.curve]
    return np.array(rows, dtype=np.float32).tobytes()


def _differences(one: TableHeader, other: TableHeader) -> Iterable[str]:
    for key, shown, content in _TASK_FIELDS:
        if getattr(one, key) == getattr(other, key):
            continue
        label, values = _FIELD_LABELS.get(shown, shown), [getattr(header, shown) for header in (one, other)]
        if content and values[0] == values[1]:
            yield f"{label} {values[0]} with other {content}"
        else:
            yield f"{label} {' and '.join('not given' if value is None else str(value) for value in values)}"


def _check_one_task(tables: Sequence[RecordedTable], out: str | Path) -> list[RecordedTable]:
    try:
        merge_tables(tables)
    except UsageError as error:
        raise UsageError(f"--out {out}: {error}; name studies of one task, or give a folder for --out") from error
    return list(tables)


def _group_by_file(tables: Sequence[RecordedTable], folder: Path) -> dict[Path, list[RecordedTable]]:
    groups: dict[Path, list[RecordedTable]] = {}
    for table in tables:
        groups.setdefault(folder / _file_name(table.header), []).append(table)
    return groups


def _file_name(header: TableHeader) -> str:
    """Returns a name that says the task to people, and that no other task has."""
    key = json.dumps([getattr(header, name) for name, _, _ in _TASK_FIELDS])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{slug(f'{Path(header.dataset).stem}-{header.backbone}')[:80]}-{digest}{TABLE_SUFFIX}"


def _merge_with_existing(path: Path, tables: Sequence[RecordedTable], space: Space) -> RecordedTable:
    """Returns the tables merged, after the runs that the file holds already."""
    if not path.exists():
        return merge_tables(tables)
    earlier = RecordedTable.load(path)
    try:
        earlier.check_space(space)
        return merge_tables([earlier, *tables])
    except UsageError as error:
        raise UsageError(f"{error}; give another --out") from error
