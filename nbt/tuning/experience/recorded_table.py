"""Recorded tables: full learning curves of many settings on one task, stored as a Parquet file.

Benchmarks, models of recorded tasks and curve forecasts are made from them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.errors import UsageError
from nbt.files import atomic_file
from nbt.settings import SETTINGS, FieldRule, TransferSettings
from nbt.training.metrics import OTHER_METRICS
from nbt.training.results import EpochResult, last_accuracy
from nbt.tuning.storage.codec import to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from nbt.tuning.space.space import Space

SCHEMA_VERSION = 1
_METADATA_KEY = b"nbt"
_CURVE_COLUMNS = ("train_loss", "val_loss", "val_accuracy", "test_accuracy", "seconds")
_CPU_SECONDS = "cpu_seconds"
# Optional columns: prefix -> field of `EpochResult` and its metrics. Tables of version 0.1 have none of them.
_METRICS = {"val": ("metrics", OTHER_METRICS), "test": ("watched_metrics", (*OTHER_METRICS, "log_loss"))}
_METRIC_COLUMNS = {
    f"{prefix}_{name}": (field_name, name) for prefix, (field_name, names) in _METRICS.items() for name in names
}
_RUN_COLUMNS = ("setting", "seed", "origin", "diverged", "setup_seconds")


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One complete training run of a setting.

    Attributes:
        setting: Number of the setting in the table; runs with the same number differ only in their seed.
        seed: Number of the repetition of the setting, from 0.
        origin: "anchor: NAME", "random", "study: NAME", or a kind of setting of
            `nbt.tuning.experience.informed_design`.
        settings: The repaired recipe.
        curve: Results of all epochs; `watched_accuracy` is the accuracy on test images.
        setup_seconds: Time before the first training step.
    """

    setting: int
    seed: int
    origin: str
    settings: TransferSettings
    curve: tuple[EpochResult, ...]
    setup_seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether the loss became infinite or NaN."""
        return bool(self.curve) and self.curve[-1].diverged

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy after the last epoch, 0 ... 1; 0 if the run diverged."""
        return last_accuracy(self.curve) or 0.0

    @property
    def test_accuracy(self) -> float | None:
        """Test accuracy after the last epoch, 0 ... 1; 0 if the run diverged, None if not measured."""
        return 0.0 if self.diverged else self.curve[-1].watched_accuracy if self.curve else None

    def to_row(self) -> dict[str, Any]:
        """Converts the run to a row of the table in JSON types."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _RUN_COLUMNS}
        columns |= self.settings.to_dict()
        epochs = [result.to_dict() | {"test_accuracy": result.watched_accuracy} for result in self.curve]
        columns |= {name: [epoch.get(name) for epoch in epochs] for name in (*_CURVE_COLUMNS, _CPU_SECONDS)}
        for column, (field_name, name) in _METRIC_COLUMNS.items():
            columns[column] = [epoch.get(field_name, {}).get(name) for epoch in epochs]
        return dict(to_json(columns))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RecordedRun:
        """Creates a run from the result of `to_row`; missing settings are neutral."""
        settings = {name: row[name] for name in SETTINGS if row.get(name) is not None}
        n_epochs = len(row["train_loss"])
        curve = tuple(
            EpochResult(
                epoch=epoch,
                train_loss=math.inf if train_loss is None else train_loss,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                seconds=seconds,
                diverged=bool(row["diverged"]) and epoch == n_epochs,
                watched_accuracy=test_accuracy,
                cpu_seconds=(row.get(_CPU_SECONDS) or [None] * n_epochs)[epoch - 1],
                **_epoch_metrics(row, epoch),
            )
            for epoch, (train_loss, val_loss, val_accuracy, test_accuracy, seconds) in enumerate(
                zip(*(row[name] for name in _CURVE_COLUMNS), strict=True), start=1
            )
        )
        return cls(
            setting=row["setting"],
            seed=row["seed"],
            origin=row["origin"],
            settings=TransferSettings.from_dict(settings),
            curve=curve,
            setup_seconds=row["setup_seconds"],
        )


@dataclass(frozen=True, kw_only=True)
class TableHeader:
    """Description of the task and the runs of a table.

    Attributes:
        dataset: Name of the dataset, or the last part of a folder's path.
        backbone: Canonical specification of the backbone.
        weights: "default", "none", or the name of a file.
        data_hash: `Task.fingerprint`.
        weights_hash: Fingerprint of the pretrained weights w0.
        image_size: Side of the images in pixels.
        classes: Number of classes that were used; None for all.
        shots: Maximum number of labelled images per class; None for all.
        epochs: Number of epochs of the baseline recipes, and of every run unless the settings of runs say otherwise.
        seed: Seed of split, settings and runs.
        dimensions: Varied dimensions: name -> range or choices; see `describe_dimensions`.
        facts: Facts about the dataset; see `nbt.task.summary.dataset_summary`.
        watched: Number of test images on which every epoch, or the last one alone, was evaluated; 0 for tables from
            studies.
        profile: Fit profile as returned by `FitProfile.to_dict`; None if it was not measured.
        design: Design of the recording: "random", "informed", or "race" or "judging" (`studies/row_tables.py`).
        schema: Version of the file format.
    """

    dataset: str
    backbone: str
    weights: str
    data_hash: str
    weights_hash: str
    image_size: int
    classes: int | None
    shots: int | None
    epochs: int
    seed: int
    dimensions: Mapping[str, Any]
    facts: Mapping[str, Any]
    watched: int
    profile: Mapping[str, Any] | None = None
    design: str = "random"
    schema: int = SCHEMA_VERSION

    @property
    def identity(self) -> dict[str, Any]:
        """Values that must be equal for one recording to continue another."""
        values = dataclasses.asdict(self)
        left_out = ("profile", "facts", *(("design",) if self.design == "random" else ()))
        return {name: value for name, value in values.items() if name not in left_out}

    @property
    def name(self) -> str:
        """Short name of task and design, such as "dtd10 · resnet50" or "dtd10 · resnet50, race"."""
        return f"{self.dataset} · {self.backbone}" + ("" if self.design == "random" else f", {self.design}")


@dataclass(frozen=True, eq=False)
class RecordedTable:
    """The recorded runs of one task.

    Attributes:
        header: Description of task and runs.
        runs: The runs; files store them sorted by setting and seed.
        source: Origin of the table for messages, e.g. the path of its file.
    """

    header: TableHeader
    runs: Sequence[RecordedRun] = field(default_factory=tuple)
    source: str = ""

    def save(self, path: Path) -> None:
        """Writes the table to a Parquet file atomically."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _arrow_schema().with_metadata(
            {_METADATA_KEY: json.dumps(to_json(dataclasses.asdict(self.header))).encode()}
        )
        rows = [run.to_row() for run in sorted(self.runs, key=lambda run: (run.setting, run.seed))]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> RecordedTable:
        """Loads a table.

        Raises:
            UsageError: The file is missing, damaged, of another version, or has other columns; the message names them.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # pq.read_table would import pandas, which takes longer than reading a hundred tables.
            with pq.ParquetFile(path) as file:
                table = file.read(use_threads=False)
            columns = table.schema.names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {reading_error(path, error)}; expected a table written by nbt record") from error
        header = _read_header(table.schema.metadata or {}, path)
        _check_columns(columns, path)
        try:
            runs = tuple(RecordedRun.from_row(row) for row in table.to_pylist())
        except (TypeError, ValueError, KeyError) as error:
            raise UsageError(f"{path}: damaged row in a recorded table ({error})") from error
        return cls(header, runs, str(path))

    def check_space(self, space: Space) -> None:
        """Checks that the space has all dimensions of the table, with the same ranges.

        A dimension that the table lacks is neutral in all its runs.

        Raises:
            UsageError: The space lacks a dimension of the table or has another range for it.
        """
        dimensions = describe_dimensions(space)
        for name, recorded in self.header.dimensions.items():
            if name not in dimensions:
                raise UsageError(
                    f"{self.source}: recorded with dimension {name}, which space {space.name} does not have"
                )
            if to_json(recorded) != dimensions[name]:
                raise UsageError(
                    f"{self.source}: recorded with {name} in {recorded}, but space {space.name} has {dimensions[name]}"
                )


def describe_dimensions(space: Space) -> dict[str, Any]:
    """Returns the dimensions of a space in JSON types: name -> list of choices, or [low, high, "log" or "linear"]."""
    return {
        dimension.name: list(dimension.choices)
        if dimension.choices
        else [dimension.low, dimension.high, "log" if dimension.log else "linear"]
        for dimension in space.dimensions
    }


def reading_error(path: str | Path, error: Exception) -> str:
    """Returns why the Parquet file of a table could not be read."""
    if not Path(path).exists():
        return "no such file"
    if Path(path).is_dir():
        return f"this is a folder; give its files, such as {Path(path) / '*.parquet'}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return "not a Parquet file, or damaged"


def _epoch_metrics(row: Mapping[str, Any], epoch: int) -> dict[str, dict[str, float]]:
    """Returns the metrics of an epoch by the fields of `EpochResult`."""
    metrics: dict[str, dict[str, float]] = {field_name: {} for field_name, _ in _METRICS.values()}
    for column, (field_name, name) in _METRIC_COLUMNS.items():
        values = row.get(column)
        if values is not None and values[epoch - 1] is not None:
            metrics[field_name][name] = values[epoch - 1]
    return metrics


def _read_header(metadata: Mapping[bytes, bytes], path: str | Path) -> TableHeader:
    if _METADATA_KEY not in metadata:
        raise UsageError(f"{path}: this Parquet file was not written by nbt record")
    try:
        values = dict(json.loads(metadata[_METADATA_KEY]))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: damaged header of a recorded table ({error})") from error
    if values.get("schema") != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: recorded table of version {values.get('schema')}; this nbt reads version {SCHEMA_VERSION}"
        )
    try:
        return TableHeader(**values)
    except TypeError as error:
        raise UsageError(f"{path}: damaged header of a recorded table ({error})") from error


def _check_columns(columns: Sequence[str], path: str | Path) -> None:
    """Raises UsageError for unknown or missing columns; columns of settings and metrics may be missing."""
    required, optional = {*_RUN_COLUMNS, *_CURVE_COLUMNS}, {*SETTINGS, *_METRIC_COLUMNS, _CPU_SECONDS}
    missing, unknown = required - set(columns), set(columns) - required - optional
    if missing or unknown:
        problems = (("lacks", missing), ("has", unknown))
        parts = [f"{verb} {', '.join(sorted(names))}" for verb, names in problems if names]
        raise UsageError(f"{path}: the columns are not those of a recorded table: it {' and '.join(parts)}")


def _arrow_type(rule: FieldRule) -> pa.DataType:
    """Returns the column type of a setting, or of the elements of a vector setting."""
    import pyarrow as pa

    if rule.choices or rule.text:
        return pa.string()
    if rule.flag:
        return pa.bool_()
    return pa.int64() if rule.integer else pa.float64()


def _arrow_schema() -> pa.Schema:
    import pyarrow as pa

    fields: dict[str, Any] = {
        "setting": pa.int32(),
        "seed": pa.int32(),
        "origin": pa.string(),
        "diverged": pa.bool_(),
        "setup_seconds": pa.float32(),
    }
    for name, setting in SETTINGS.items():
        column = _arrow_type(setting.rule)
        fields[name] = pa.list_(column) if setting.knots else column
    fields |= {name: pa.list_(pa.float32()) for name in (*_CURVE_COLUMNS, *_METRIC_COLUMNS, _CPU_SECONDS)}
    return pa.schema(list(fields.items()))
