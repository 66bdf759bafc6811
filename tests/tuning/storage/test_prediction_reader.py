"""Stored predictions: read when they are first used, replaced by later ones, and absent from older studies."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from nbt.errors import NbtError
from nbt.tuning.storage.database import resolve_storage
from nbt.tuning.storage.prediction_reader import PredictionReader
from nbt.tuning.storage.studies import read_study
from tests.tuning.fakes import fake_predictions, open_fake_study, writer


def run_sql(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / ".nbt" / "studies.db") as connection:
        connection.execute(statement)


def reader(folder: Path) -> PredictionReader:
    return PredictionReader(resolve_storage(None, folder), "fake")


def test_predictions_are_read_by_run_and_later_ones_replace_earlier_ones(tmp_path: Path) -> None:
    early, late, other = (fake_predictions(accuracy, 400, seed=seed) for seed, accuracy in enumerate((0.5, 0.7, 0.9)))
    with open_fake_study(tmp_path) as store:
        store.put_predictions("test:a", early)
        store.put_predictions("test:a", late)
        store.put_predictions("test:b", other)
        store.put_predictions("test:c", None)
    read = reader(tmp_path)
    for run, expected in (("test:a", late), ("test:b", other)):
        np.testing.assert_allclose(read(run).log_probabilities, expected.log_probabilities, rtol=1e-6)
        np.testing.assert_array_equal(read(run).index, expected.index)
    assert read("test:c") is None


def test_reading_is_lazy_and_done_once(tmp_path: Path) -> None:
    with open_fake_study(tmp_path) as store:
        store.put_predictions("test:a", fake_predictions(0.5, 100))
    record = read_study(resolve_storage(None, tmp_path), "fake")
    run_sql(tmp_path, "UPDATE nbt_predictions SET run = 'test:b'")
    assert record.load_predictions("test:a") is None, "the record was read before the change"
    assert record.load_predictions("test:b") is record.load_predictions("test:b")


def test_a_database_without_the_table_has_no_predictions_and_gets_it_from_the_next_driver(tmp_path: Path) -> None:
    open_fake_study(tmp_path).close()
    run_sql(tmp_path, "DROP TABLE nbt_predictions")
    assert reader(tmp_path)("test:a") is None
    with open_fake_study(tmp_path) as store:
        store.put_predictions("test:a", fake_predictions(0.5, 100))
    assert reader(tmp_path)("test:a") is not None


def test_damaged_predictions_are_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_fake_study(tmp_path) as store:
        store.put_predictions("test:a", fake_predictions(0.5, 100))
    run_sql(tmp_path, "UPDATE nbt_predictions SET predictions = X'1234'")
    assert reader(tmp_path)("test:a") is None
    assert "run test:a: the stored predictions are damaged" in caplog.text


def test_a_driver_without_the_lock_writes_no_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_fake_study(tmp_path) as store:

        def taken() -> None:
            raise NbtError("another driver has taken the study")

        with monkeypatch.context() as patch:
            patch.setattr(writer(store)._lock, "check", taken)
            with pytest.raises(NbtError, match="another driver"):
                store.put_predictions("test:a", fake_predictions(0.5, 100))
    assert reader(tmp_path)("test:a") is None
