from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nbt.tuning.experience.backbone_forecast import COLUMNS, BackboneForecaster, forecaster_without, read_rows


def _rows(n_datasets: int, error: float = 0.3, seed: int = 0) -> pd.DataFrame:
    """Returns rows whose log odds are 1 above those of the probes, with an error per data set and per row."""
    rng, rows = np.random.default_rng(seed), []
    for dataset in range(n_datasets):
        shift = rng.normal(0, 0.5)
        for probe in rng.normal(0, 1.5, size=6):
            accuracy = 1 / (1 + np.exp(-(probe + 1 + shift + rng.normal(0, error))))
            odds = 1 / (1 + np.exp(-probe))
            rows.append((f"d{dataset}", "net", "test", odds, odds, accuracy))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_relation_and_the_spread_within_a_data_set_are_found() -> None:
    forecast = BackboneForecaster(_rows(200)).forecast(0.5, 0.5)
    assert forecast.mean == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    assert forecast.spread == pytest.approx(0.3, abs=0.03)
    assert forecast.low < forecast.mean < forecast.high


def test_intervals_of_new_data_sets_cover_as_often_as_they_say() -> None:
    covered = []
    for seed in range(40):
        rows = _rows(9, seed=seed)
        forecaster, others = BackboneForecaster(rows[rows["dataset"] != "d8"]), rows[rows["dataset"] == "d8"]
        for row in others.itertuples():
            forecast = forecaster.forecast(row.ridge, row.knn)
            covered.append(forecast.low <= row.accuracy <= forecast.high)
    assert 0.7 < np.mean(covered) < 0.92


def test_better_probes_are_expected_to_end_better() -> None:
    forecaster = forecaster_without("photos")
    means = [forecaster.forecast(probe, probe).mean for probe in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert means == sorted(means)
    assert 0.0 < means[0] < means[-1] < 1.0


@pytest.mark.parametrize("dataset", ["dtd10", "/data/dtd10", "/data/CUB_200_2011", "cub"])
def test_a_data_set_teaches_nothing_of_itself(dataset: str) -> None:
    full, without = BackboneForecaster(read_rows()), forecaster_without(dataset)
    assert without.forecast(0.5, 0.5) != full.forecast(0.5, 0.5)
    assert forecaster_without("another").forecast(0.5, 0.5) == full.forecast(0.5, 0.5)
