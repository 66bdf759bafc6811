from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.tuning.benchmark.curves.replay import replay_curves
from nbt.tuning.benchmark.curves.table import CurveTask, load_curve_task
from tests.tuning.benchmark.curves.curve_files import write_table


@pytest.fixture
def tasks(tmp_path: Path) -> list[CurveTask]:
    seconds = [[2.0] * 9] * 20 + [[1.0] * 9] * 21
    paths = [
        write_table(tmp_path / "a.parquet", settings=41),
        write_table(tmp_path / "b.parquet", settings=41, seconds=seconds),
    ]
    return [load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True) for path in paths]


def test_rows_hold_regret_rank_and_paired_difference(tasks: list[CurveTask]) -> None:
    result = replay_curves(tasks, methods=["random", "tpe+asha"], seeds=2, budget=6)
    assert result.amounts == (5, 6)
    assert [(row["task"], row["method"]) for row in result.summary_rows()] == [
        ("a", "random"),
        ("a", "tpe+asha"),
        ("b", "random"),
        ("b", "tpe+asha"),
    ]
    random, asha = result.overall_rows()
    assert result.reference == "tpe+asha"
    assert asha["difference_5"] == 0.0
    assert random["difference_5"] == pytest.approx(random["regret_5"] - asha["regret_5"])
    assert random["rank_5"] + asha["rank_5"] == pytest.approx(3.0)
    assert random["regret_5_low"] <= random["regret_5"] <= random["regret_5_high"]


def test_the_same_cost_is_fewer_epochs_of_slow_settings(tasks: list[CurveTask]) -> None:
    result = replay_curves(tasks, methods=["random"], seeds=3, budget=6)
    assert np.array_equal(result.by_cost["random"][0], result.by_epochs["random"][0])
    assert (result.by_cost["random"][1] >= result.by_epochs["random"][1]).all()


def test_workers_do_not_change_the_result(tasks: list[CurveTask]) -> None:
    one, two = (replay_curves(tasks, methods=["tpe", "guided"], seeds=2, budget=3, workers=n).by_epochs for n in (1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_tables_of_one_name_are_refused(tasks: list[CurveTask]) -> None:
    with pytest.raises(UsageError, match="the same name"):
        replay_curves([tasks[0], tasks[0]], seeds=1, budget=2)
