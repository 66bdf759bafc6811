from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbt.errors import UsageError
from nbt.tuning.benchmark.curves.table import load_curve_task
from tests.tuning.benchmark.curves.curve_files import write_table
from tests.tuning.benchmark.tables import make_table

LOSSES: dict[str, Any] = {"metric": "valid_loss", "judge": "test_loss", "minimize": True}


def test_scalars_are_hyperparameters_and_lists_are_curves(tmp_path: Path) -> None:
    task = load_curve_task(write_table(tmp_path / "a.parquet"), **LOSSES)
    assert list(task.columns) == ["rate", "kind"]
    assert task.name, len(task) == ("a", 40)
    assert task.length == 9
    assert task.scores[1, -1] == -pd.read_parquet(tmp_path / "a.parquet")["valid_loss"][1][-1]
    assert task.judged[1, -1] == pytest.approx(task.scores[1, -1] - 0.01)
    assert np.allclose(task.costs.sum(axis=1), 1.0)


def test_a_run_diverges_at_its_first_value_that_is_not_finite(tmp_path: Path) -> None:
    task = load_curve_task(write_table(tmp_path / "a.parquet"), **LOSSES)
    assert task.scores[0, -1] == -np.inf
    assert np.isfinite(task.scores[0, :-1]).all()
    assert task.model_scores()[0, -1] == -np.inf


def test_rates_are_logarithmic_and_points_lie_in_the_unit_cube(tmp_path: Path) -> None:
    task = load_curve_task(write_table(tmp_path / "a.parquet"), **LOSSES)
    points, rates = task.points(), task.columns["rate"]
    expected = np.log(rates / rates.min()) / np.log(rates.max() / rates.min())
    assert points[:, 0] == pytest.approx(expected)
    assert task.point_of(task.params(3)) == pytest.approx(points[3])
    a, b = (int(np.flatnonzero(task.columns["kind"] == kind)[0]) for kind in "ab")
    assert np.linalg.norm(points[a, 1:] - points[b, 1:]) == pytest.approx(1.0)


def test_the_initial_value_is_left_out(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet")
    with_it, without = load_curve_task(path, **LOSSES), load_curve_task(path, **LOSSES, initial=True)
    assert without.length == with_it.length - 1
    assert np.array_equal(without.scores, with_it.scores[:, 1:])


def test_seconds_are_the_cost_in_units_of_the_median_run(tmp_path: Path) -> None:
    seconds = [[2.0] * 9 if row % 3 else [1.0] * 9 for row in range(41)]
    task = load_curve_task(write_table(tmp_path / "a.parquet", settings=41, seconds=seconds), **LOSSES)
    assert task.costs[0].sum() == pytest.approx(0.5)
    assert task.costs[1].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("after", [np.nan, np.inf, -1.0])
def test_seconds_after_a_divergence_count_0_where_they_are_no_cost(tmp_path: Path, after: float) -> None:
    seconds = [[1.0] * 9] * 40
    seconds[0] = [1.0] * 8 + [after]
    seconds[5] = [9.0] * 9
    task = load_curve_task(write_table(tmp_path / "a.parquet", seconds=seconds), **LOSSES)
    assert task.costs[0] == pytest.approx([1 / 9] * 8 + [0.0])
    assert task.costs[1].sum() == pytest.approx(1.0), "the median of the runs that do not diverge"
    assert task.costs[5].sum() == pytest.approx(9.0), "a divergence that took time"


@pytest.mark.parametrize(("value", "row"), [(np.nan, 3), (np.inf, 3), (-1.0, 3), (np.nan, 5)])
def test_seconds_before_a_divergence_are_checked(tmp_path: Path, value: float, row: int) -> None:
    seconds = [[1.0] * 9 for _ in range(40)]
    seconds[row][7] = value
    path = write_table(tmp_path / "a.parquet", seconds=seconds)
    with pytest.raises(UsageError, match=f"a.parquet: row {row}, counted from 0: the curve 'seconds' has a value"):
        load_curve_task(path, **LOSSES)


def test_values_of_other_tables_have_a_place_in_the_range(tmp_path: Path) -> None:
    task = load_curve_task(write_table(tmp_path / "a.parquet", constant=[1.0] * 40), **LOSSES)
    params = {**task.params(0), "rate": 0.0, "constant": 2.0}
    assert task.point_of(params)[[0, -1]] == pytest.approx([0.0, 0.0])
    assert task.point_of({**params, "rate": 1e9})[0] == pytest.approx(1.0)
    assert task.kinds() == {"rate": "number", "kind": "str", "constant": "number"}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"metric": "val_loss"}, "--metric 'val_loss' is not a column of curves.*did you mean valid_loss"),
        ({}, {"judge": "rate"}, "--judge 'rate' is not a column of curves"),
        ({"note": [None] * 40}, {}, "column 'note' is neither a hyperparameter"),
        ({"other": [[1.0] * 4] * 40}, {}, "different lengths: 4, 9"),
        ({"rate": [np.nan] * 40}, {}, "hyperparameter 'rate' is not finite"),
        ({"test_loss": [[1.0, np.nan]] * 40, "valid_loss": [[1.0, 1.0]] * 40}, {}, "diverges in --judge 'test_loss'"),
        ({"test_loss": [[1.0, 1.0]] * 40, "valid_loss": [[1.0, np.inf]] * 40}, {}, "diverges in --metric 'valid_loss'"),
        ({"seconds": [[0.0] * 9] * 40}, {}, "'seconds' is 0 in the median run"),
    ],
)
def test_wrong_tables_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write_table(tmp_path / "a.parquet", **columns)
    with pytest.raises(UsageError, match=message):
        load_curve_task(path, **{**LOSSES, **options})


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("rate,loss\n")
    with pytest.raises(UsageError, match="not a Parquet file, or damaged; expected a table of learning curves"):
        load_curve_task(text, **LOSSES)
    with pytest.raises(UsageError, match="this is a folder"):
        load_curve_task(tmp_path, **LOSSES)
    with pytest.raises(UsageError, match="no such file"):
        load_curve_task(tmp_path / "none.parquet", **LOSSES)
    recorded = tmp_path / "recorded.parquet"
    make_table(30, seed=0).save(recorded)
    with pytest.raises(UsageError, match="'valid_loss' is not a column of curves"):
        load_curve_task(recorded, **LOSSES)
