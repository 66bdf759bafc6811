from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.tuning.benchmark.curves.methods import curve_methods
from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask, load_curve_task
from tests.tuning.benchmark.curves.curve_files import write_table


@pytest.fixture
def tasks(tmp_path: Path) -> list[CurveTask]:
    paths = [write_table(tmp_path / "a.parquet"), write_table(tmp_path / "b.parquet", best=2e-2)]
    return [load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True) for path in paths]


def run(name: str, tasks: list[CurveTask], seed: int = 0) -> CurveSearch:
    search = CurveSearch(tasks[0], 6 * tasks[0].length)
    with pytest.raises(BudgetSpentError):
        curve_methods()[name][1](search, tasks[1:], seed)
    return search


@pytest.mark.parametrize("name", curve_methods())
def test_every_method_spends_its_budget_and_repeats_with_its_seed(name: str, tasks: list[CurveTask]) -> None:
    search = run(name, tasks)
    assert len(search.path) == 6 * 9
    assert search.path == run(name, tasks).path
    assert max(search.trained.values()) == 9, "at least one setting is trained to its end"


def test_methods_that_stop_start_more_settings(tasks: list[CurveTask]) -> None:
    for name in ("tpe+asha", "tpe+hyperband", "1-epoch", "guided"):
        assert len(run(name, tasks).trained) > len(run("tpe", tasks).trained), name


def test_tables_of_similar_tasks_help(tasks: list[CurveTask]) -> None:
    regrets = {name: [run(name, tasks, seed).regret()[8] for seed in range(3)] for name in ("guided", "random")}
    assert max(regrets["guided"]) < min(regrets["random"])


@pytest.mark.parametrize("columns", [{"depth": [1.0] * 40}, {"kind": [1.0] * 40}, {"kind": [True] * 40}])
def test_tables_with_other_hyperparameters_are_not_used(
    tasks: list[CurveTask], tmp_path: Path, columns: dict[str, Any]
) -> None:
    path = write_table(tmp_path / "c.parquet", **columns)
    other = load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True)
    assert run("guided", [tasks[0], other]).path == run("without tables", tasks).path


def test_tables_with_other_ranges_are_used(tasks: list[CurveTask]) -> None:
    with_zero = replace(tasks[0], columns={**tasks[0].columns, "rate": np.r_[0.0, tasks[0].columns["rate"][1:]]})
    assert run("guided", [with_zero, tasks[1]]).path != run("without tables", [with_zero]).path


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown method 'tpe\\+ahsa'; did you mean tpe\\+asha"):
        curve_methods(["tpe+ahsa"])
