from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import load_curve_task
from tests.tuning.benchmark.curves.curve_files import write_table


@pytest.fixture
def search(tmp_path: Path) -> CurveSearch:
    path = write_table(tmp_path / "a.parquet")
    return CurveSearch(load_curve_task(path, metric="valid_loss", judge="test_loss", minimize=True), 20)


def test_the_incumbent_is_the_best_finished_setting(search: CurveSearch) -> None:
    order = np.argsort(-search.task.scores[:, -1])
    good, bad = int(order[0]), int(order[30])
    for _ in range(9):
        search.train(bad)
    search.train(good)
    assert search.path == [bad] * 10, "a partial trial does not replace a finished one"
    for _ in range(8):
        search.train(good)
    assert search.path[-2:] == [bad, good]
    assert search.regret()[-1] == 0.0
    assert search.regret()[9] > 0.5


def test_regret_where_the_best_equals_the_median_is_that_to_the_worst(search: CurveSearch) -> None:
    ends = np.where(np.arange(40) < 30, -1.0, -3.0)
    ends[[1, 2, 3]] = -1.5, -np.inf, -1.0
    judged = np.tile(ends[:, None], 9)
    regrets = []
    for setting in (1, 2, 3, 39):
        judging = CurveSearch(replace(search.task, judged=judged), 1)
        judging.train(setting)
        regrets.append(float(judging.regret()[0]))
    assert regrets == [0.25, 1.0, 0.0, 1.0]


def test_a_diverged_setting_is_no_incumbent(search: CurveSearch) -> None:
    search.train(1)
    for _ in range(9):
        search.train(0)
    assert search.path[-1] == 1
    assert not search.is_complete(0)


def test_the_budget_ends_the_search(search: CurveSearch) -> None:
    for _ in range(9):
        search.train(1)
    for _ in range(9):
        search.train(2)
    search.train(3)
    search.train(3)
    with pytest.raises(BudgetSpentError):
        search.train(3)
    assert len(search.path) == len(search.costs) == 20


def test_the_nearest_unused_setting_replaces_a_proposal(search: CurveSearch) -> None:
    params = dict(search.params(7))
    assert search.nearest_to(params) == (7, pytest.approx(0.0))
    search.mark_used(7)
    assert search.nearest_to(params)[0] != 7
    assert 7 not in search.unused
