"""The study of search methods on recorded curves: its rule, its report, and the rows of its searches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.benchmark.tables import SPACE, make_table

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows_with(guided: list[float], rival: float = 2.0) -> list[dict[str, Any]]:
    """Returns rows of guided, with a regret after every run, and of the general methods, with a constant one.

    Data sets and seeds differ a little.
    """
    from search_efficiency import GENERAL, GUIDED

    rows = []
    for index, dataset in enumerate("abcdef"):
        for seed in range(2):
            shift = 0.01 * ((index + seed) % 3)
            regrets = {name: [rival + shift] * 20 for name in GENERAL}
            regrets[GUIDED] = [value + shift * (1 + index % 2) for value in guided]
            for name, regret in regrets.items():
                counts = {"stopped": 4, "false_stops": int(name == GUIDED)}
                row = {"arm": name, "dataset": dataset, "seed": seed, "regret": regret, "cpu_seconds": 2.0}
                rows.append({**row, **counts, "machine": "here"})
    return rows


def test_a_search_that_is_soon_at_every_mark_is_confirmed() -> None:
    from regrets import mean_regrets
    from search_efficiency import GENERAL, GUIDED, shares_to_mark, summarise, verdict

    rows = rows_with([5.0, 3.0, *[1.0] * 18])
    regrets, seeds = mean_regrets(rows, (*GENERAL, GUIDED))
    assert seeds == 2
    assert shares_to_mark(regrets) == [3 / 20] * 6
    assert verdict(regrets) == "confirmed"
    report = summarise(rows)
    assert "**Confirmed**" in report
    assert "in the median 0.15 of all" in report
    assert "| guided | 48 | 12 | 25.0% |" in report


@pytest.mark.parametrize(
    ("guided", "expected"),
    [
        ([*[2.0] * 9, *[1.0] * 11], "confirmed in part"),  # below the rivals, but late
        ([*[3.0] * 9, *[1.0] * 11], "not confirmed"),  # late, and clearly above them before
        ([2.5] * 20, "not confirmed"),
    ],
)
def test_the_verdict_follows_the_rule(guided: list[float], expected: str) -> None:
    from regrets import mean_regrets
    from search_efficiency import GENERAL, GUIDED, shares_to_mark, verdict

    rows = rows_with(guided)
    for row in rows:  # the general methods end better than they were
        if row["arm"] != GUIDED:
            row["regret"] = [*row["regret"][:-1], 1.5]
    regrets, _ = mean_regrets(rows, (*GENERAL, GUIDED))
    assert min(shares_to_mark(regrets)) > 1 / 3
    assert verdict(regrets) == expected


def test_one_data_set_without_the_mark_is_enough_against_confirmation() -> None:
    from regrets import mean_regrets
    from search_efficiency import GENERAL, GUIDED, shares_to_mark, verdict

    rows = rows_with([3.0, 2.5, *[1.0] * 18])
    for row in rows:
        if row["dataset"] == "a" and row["arm"] == GUIDED:
            row["regret"] = [2.1] * 20
    regrets, _ = mean_regrets(rows, (*GENERAL, GUIDED))
    assert shares_to_mark(regrets)[0] == math.inf
    assert verdict(regrets) == "confirmed in part"


def test_a_search_that_leaves_the_mark_again_is_not_at_it() -> None:
    from regrets import mean_regrets
    from search_efficiency import GENERAL, GUIDED, shares_to_mark

    for guided, expected in (([1.0] * 10 + [3.0] * 10, math.inf), ([1.0] * 5 + [3.0] * 5 + [1.0] * 10, 11 / 20)):
        regrets, _ = mean_regrets(rows_with(guided), (*GENERAL, GUIDED))
        assert shares_to_mark(regrets) == [expected] * 6


def test_without_every_general_method_there_is_no_verdict() -> None:
    from regrets import mean_regrets
    from search_efficiency import GENERAL, GUIDED, summarise, verdict

    rows = [row for row in rows_with([1.0] * 20) if row["arm"] != "tpe"]
    assert verdict(mean_regrets(rows, (*GENERAL, GUIDED))[0]) == "no verdict yet"
    assert "Too few searches" in summarise([])


def test_a_row_has_the_regret_after_every_full_run(tmp_path: Path) -> None:
    from search_efficiency import ReplayTask, draw_figure

    table = make_table(40, dataset="a", data_hash="a")
    row = ReplayTask(table, [table, make_table(30, seed=1, dataset="b", data_hash="b")], SPACE).search("tpe+asha", 0)
    assert len(row["regret"]) == 20
    assert min(row["regret"]) >= 0.0 and row["regret"][-1] < row["regret"][0]
    assert 0 <= row["false_stops"] <= row["stopped"]
    assert row["stopped"] > 0
    draw_figure(rows_with([1.0] * 20), tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().count("guided") == 1
