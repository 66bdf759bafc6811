from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from nbt.cache import cache_entries
from nbt.paths import cache_folder
from nbt.tuning import model_cache
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.model_cache import ModelCache
from nbt.tuning.pruners.curve_forecast import CurveForecaster, table_curves
from nbt.tuning.transferred_priors import TransferredPriors
from tests.tuning.benchmark.tables import make_table
from tests.tuning.synthetic import patch_small_forests, source_tables


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tables(tmp_path: Path) -> list[RecordedTable]:
    """Two tables of many settings and one of few, from files."""
    loaded = []
    for i, recorded in enumerate([*source_tables()[:2], make_table(5)]):
        recorded.save(tmp_path / f"{i}.parquet")
        loaded.append(RecordedTable.load(tmp_path / f"{i}.parquet"))
    return loaded


def fitted(tables: list[RecordedTable]) -> TransferredPriors:
    priors = TransferredPriors(tables, is_cached=True)
    with patch_small_forests():
        priors.fit()
    return priors


def forbid_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CurveForecaster, "fit", None)


def test_reading_the_cache_fits_nothing(tables: list[RecordedTable], monkeypatch: pytest.MonkeyPatch) -> None:
    priors = TransferredPriors(tables, is_cached=True)
    with monkeypatch.context() as patch:
        forbid_fits(patch)
        priors.read_cache()
    assert not priors.is_fitted
    with patch_small_forests():
        priors.fit()
    assert priors.is_fitted
    again = TransferredPriors(tables, is_cached=True)
    forbid_fits(monkeypatch)
    again.read_cache()
    assert again.is_fitted and again.forecaster is not None
    assert TransferredPriors([]).is_fitted


def test_a_second_search_has_the_same_models_without_fitting(
    tables: list[RecordedTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fitted(tables)
    forbid_fits(monkeypatch)
    second = fitted(tables)
    curves = table_curves(tables[0], None)
    forecasts = [priors.forecaster.forecast(curves[5].until(4), curves[:3], 0.3) for priors in (first, second)]
    np.testing.assert_array_equal(forecasts[0].values, forecasts[1].values)
    np.testing.assert_array_equal(forecasts[0].weights, forecasts[1].weights)
    assert first.forecaster.level == second.forecaster.level


def test_other_tables_versions_and_modules_have_other_files(
    tables: list[RecordedTable], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {ModelCache(tables)._name, ModelCache(tables[:2])._name, ModelCache(tables[::-1])._name}
    source_tables()[2].save(Path(tables[0].source))
    names.add(ModelCache(tables)._name)
    monkeypatch.setattr(model_cache, "version", lambda name: "0")
    names.add(ModelCache(tables)._name)
    (tmp_path / "module.py").write_text("")
    modules = ("kernel", "gaussian_process", "experience_model", "task_similarity", "target")
    for module in modules:
        with monkeypatch.context() as patch:
            patch.setattr(getattr(model_cache, module), "__file__", str(tmp_path / "module.py"))
            names.add(ModelCache(tables)._name)
    assert len(names) == 5 + len(modules)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_fitted_again(tables: list[RecordedTable], damage: bytes | None) -> None:
    fitted(tables)
    (path,) = cache_folder("models").iterdir()
    intact = path.read_bytes()
    path.write_bytes(intact[: len(intact) // 2] if damage is None else damage)
    assert ModelCache(tables).read() is None
    fitted(tables)
    assert ModelCache(tables).read() is not None


def test_single_damaged_bytes_of_headers_count_as_missing_or_change_nothing(tables: list[RecordedTable]) -> None:
    """The archive has an unexpected error for some of them, such as that of an unknown compression method."""
    fitted(tables[:1])
    (path,) = cache_folder("models").iterdir()
    intact = path.read_bytes()
    directory = intact.find(b"PK\x01\x02")
    for position in [*range(60), *range(directory, directory + 46)]:
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 0x63]) + intact[position + 1 :])
        ModelCache(tables[:1]).read()


def test_without_usable_curves_there_is_no_forecaster_in_the_cache(tmp_path: Path) -> None:
    make_table(5).save(tmp_path / "0.parquet")
    tables = [RecordedTable.load(tmp_path / "0.parquet")]
    assert fitted(tables).forecaster is None
    assert ModelCache(tables).read() is None and not cache_entries(["models"])


def test_a_cache_that_cannot_be_written_only_costs_time(
    tables: list[RecordedTable], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file is in the way")
    with caplog.at_level(logging.INFO, logger="nbt"):
        priors = fitted(tables)
    assert priors.forecaster is not None
    assert "the forests of the learning curves are not cached" in caplog.text


def test_the_models_are_an_entry_of_the_cache(tables: list[RecordedTable]) -> None:
    fitted(tables)
    (entry,) = cache_entries(["models"])
    assert entry.bytes > 1000


def test_tables_that_are_not_cached_leave_no_file(tables: list[RecordedTable]) -> None:
    with patch_small_forests():
        TransferredPriors(tables).fit()
    assert not cache_entries(["models"])
