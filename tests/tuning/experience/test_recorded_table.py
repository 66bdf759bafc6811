from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nbt.errors import UsageError
from nbt.paths import bundled_folder
from nbt.training.metrics import OTHER_METRICS
from nbt.tuning.experience.recorded_table import RecordedTable, describe_dimensions
from nbt.tuning.space.space import Space
from tests.tuning.benchmark.tables import SPACE, diverge, header, make_table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.parquet"


def rewrite(path: Path, change: Any) -> None:
    """Replaces the pyarrow table of a file by `change` of it."""
    pq.write_table(change(pq.read_table(path)), path)


def with_header(table: pa.Table, **changes: Any) -> pa.Table:
    values = json.loads(table.schema.metadata[b"nbt"])
    return table.replace_schema_metadata({b"nbt": json.dumps({**values, **changes}).encode()})


class TestFile:
    def test_a_saved_table_is_loaded(self, path: Path) -> None:
        table = make_table(12, change=lambda run: diverge(run) if run.setting == 5 else run)
        table.save(path)
        loaded = RecordedTable.load(path)
        assert loaded.header == table.header
        assert [(run.setting, run.seed, run.origin, run.settings) for run in loaded.runs] == [
            (run.setting, run.seed, run.origin, run.settings) for run in table.runs
        ]
        for run, saved in zip(loaded.runs, table.runs, strict=True):
            assert run.diverged == saved.diverged
            assert run.val_accuracy == pytest.approx(saved.val_accuracy, abs=1e-6)
            assert run.test_accuracy == pytest.approx(saved.test_accuracy, abs=1e-6)
            assert [result.epoch for result in run.curve] == [result.epoch for result in saved.curve]
            for result, expected in zip(run.curve, saved.curve, strict=True):
                assert result.metrics == pytest.approx(expected.metrics, rel=1e-6)
                assert result.watched_metrics == pytest.approx(expected.watched_metrics, rel=1e-6)

    def test_a_table_without_metrics_is_loaded(self, path: Path) -> None:
        make_table(3).save(path)
        columns = [f"val_{name}" for name in OTHER_METRICS] + [f"test_{name}" for name in (*OTHER_METRICS, "log_loss")]
        rewrite(path, lambda table: table.drop_columns(columns))
        curves = [run.curve for run in RecordedTable.load(path).runs]
        assert all(result.metrics == result.watched_metrics == {} for curve in curves for result in curve)

    def test_a_failed_write_leaves_no_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="disk full"):
            make_table(3).save(path)
        assert list(path.parent.iterdir()) == []

    def test_a_missing_setting_column_is_neutral(self, path: Path) -> None:
        make_table(5).save(path)
        rewrite(path, lambda table: table.drop_columns(["mixup"]))
        assert {run.settings.mixup for run in RecordedTable.load(path).runs} == {0.0}

    def test_an_unknown_column_is_refused_by_name(self, path: Path) -> None:
        make_table(3).save(path)
        rewrite(path, lambda table: table.append_column("dropout", pa.array([0.1] * table.num_rows)))
        with pytest.raises(UsageError, match="has dropout"):
            RecordedTable.load(path)

    def test_a_missing_curve_column_is_refused_by_name(self, path: Path) -> None:
        make_table(3).save(path)
        rewrite(path, lambda table: table.drop_columns(["val_loss"]))
        with pytest.raises(UsageError, match="lacks val_loss"):
            RecordedTable.load(path)

    def test_another_version_is_refused(self, path: Path) -> None:
        make_table(3).save(path)
        rewrite(path, lambda table: with_header(table, schema=7))
        with pytest.raises(UsageError, match="version 7; this nbt reads version 1"):
            RecordedTable.load(path)

    @pytest.mark.parametrize("text", [b"no json", b"[1]", b"\xff", b"3", b'{"schema": 1}'])
    def test_a_damaged_header_is_refused(self, text: bytes, path: Path) -> None:
        make_table(3).save(path)
        rewrite(path, lambda table: table.replace_schema_metadata({b"nbt": text}))
        with pytest.raises(UsageError, match="damaged header"):
            RecordedTable.load(path)

    def test_a_damaged_file_is_refused_or_loaded(self, path: Path) -> None:
        make_table(3).save(path)
        intact, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
        for _ in range(60):
            damaged = bytearray(intact)
            for position in rng.integers(len(damaged), size=10):
                damaged[position] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                RecordedTable.load(path)
            except UsageError as error:
                refused += 1
                assert str(path) in str(error)
        assert refused > 30

    def test_other_files_are_refused(self, path: Path) -> None:
        with pytest.raises(UsageError, match="no such file; expected a table written by nbt record"):
            RecordedTable.load(path)
        with pytest.raises(UsageError, match=r"this is a folder; give its files, such as .*\*\.parquet"):
            RecordedTable.load(path.parent)
        path.write_text("no table")
        with pytest.raises(UsageError, match="not a Parquet file, or damaged; expected a table written by nbt record"):
            RecordedTable.load(path)
        pq.write_table(pa.table({"a": [1]}), path)
        with pytest.raises(UsageError, match="was not written by nbt record"):
            RecordedTable.load(path)


class TestSpace:
    def test_the_recorded_space_matches(self) -> None:
        make_table(3).check_space(SPACE)

    def test_the_table_may_lack_a_dimension(self) -> None:
        dimensions = describe_dimensions(SPACE)
        del dimensions["mixup"]
        make_table(3, dimensions=dimensions).check_space(SPACE)

    def test_an_unknown_dimension_is_refused_by_name(self) -> None:
        table = make_table(3, dimensions={**describe_dimensions(SPACE), "dropout": [0.0, 0.5, "linear"]})
        with pytest.raises(UsageError, match="dimension dropout, which space non_binary does not have"):
            table.check_space(SPACE)

    def test_another_range_is_refused_by_name(self) -> None:
        table = make_table(3, dimensions={**describe_dimensions(SPACE), "mixup": [0.0, 0.9, "linear"]})
        with pytest.raises(UsageError, match=r"mixup in \[0.0, 0.9, 'linear'\], but"):
            table.check_space(SPACE)

    def test_another_space_is_refused(self) -> None:
        with pytest.raises(UsageError, match="space binary"):
            make_table(3).check_space(Space.load("binary"))


class TestRun:
    def test_accuracies_are_those_of_the_last_epoch(self) -> None:
        run = make_table(1).runs[0]
        better = dataclasses.replace(run.curve[1], val_accuracy=0.99, watched_accuracy=0.5)
        last = dataclasses.replace(run.curve[-1], val_accuracy=0.3, watched_accuracy=0.25)
        run = dataclasses.replace(run, curve=(run.curve[0], better, *run.curve[2:-1], last))
        assert (run.val_accuracy, run.test_accuracy) == (0.3, 0.25)

    def test_a_diverged_run_has_accuracy_0(self) -> None:
        run = diverge(make_table(1).runs[0])
        assert (run.diverged, run.val_accuracy, run.test_accuracy) == (True, 0.0, 0.0)

    def test_facts_and_profile_are_not_part_of_the_identity(self) -> None:
        assert header().identity == header(facts={"classes": 9}, profile={"scalars": {}}).identity
        assert header().identity != header(epochs=5).identity


@pytest.mark.parametrize(
    "path", sorted(bundled_folder("studies").glob("recorded/*.parquet")), ids=lambda path: path.stem
)
def test_shipped_tables_can_be_loaded_and_match_the_default_space(path: Path) -> None:
    table = RecordedTable.load(path)
    table.check_space(Space.load("non_binary"))
    assert len({run.setting for run in table.runs}) > 100
    assert all(len(run.curve) == table.header.epochs or run.diverged for run in table.runs)
    assert all(run.test_accuracy is not None for run in table.runs)
    assert table.header.profile is not None
    for name in (table.header.dataset, table.header.weights, table.header.profile["facts"]["weights"]):
        assert "/" not in name, "the table contains no absolute paths"
