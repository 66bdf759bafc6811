"""The study on TaskSet: its rule, its report, and the searches of other packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbt.tuning.benchmark.curves.search import BudgetSpentError, CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask, load_curve_task
from tests.tuning.benchmark.curves.curve_files import write_table

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture
def tasks(tmp_path: Path) -> list[CurveTask]:
    options: dict[str, Any] = {"metric": "valid_loss", "judge": "test_loss", "minimize": True}
    return [load_curve_task(write_table(tmp_path / f"{name}.parquet"), **options) for name in ("a", "b", "c")]


def rows_with(regrets: dict[str, float], tasks: int = 6) -> list[dict[str, Any]]:
    """Returns rows of methods with a mean regret each, which differs a little between tasks and seeds."""
    return [
        {
            "arm": name,
            "dataset": f"task {task}",
            "seed": seed,
            "regret": [value + 0.01 * ((task + seed + i) % 3)] * 20,
            "cpu_seconds": 2.0,
            "machine": "here",
        }
        for i, (name, value) in enumerate(regrets.items())
        for task in range(tasks)
        for seed in range(2)
    ]


@pytest.mark.parametrize(
    ("regrets", "expected"),
    [
        ((0.1, 0.3, 0.0, 0.2), "confirmed"),
        ((0.295, 0.3, 0.195, 0.2), "confirmed in part"),
        ((0.5, 0.3, 0.0, 0.2), "not confirmed"),
        ((0.1, 0.3, 0.4, 0.2), "not confirmed"),
    ],
)
def test_the_verdict_follows_the_rule(regrets: tuple[float, ...], expected: str) -> None:
    from regrets import mean_regrets
    from taskset import METHODS, summarise, verdict

    rows = rows_with(dict(zip(("without tables", "tpe+asha", "guided", "priorband"), regrets, strict=True)))
    assert verdict(mean_regrets(rows, METHODS)[0]) == expected
    assert f"**{expected}**" in summarise(rows)


def test_a_method_without_all_tasks_is_left_out() -> None:
    from regrets import mean_regrets
    from taskset import METHODS, summarise, verdict

    rows = rows_with({"without tables": 0.1, "tpe+asha": 0.3, "guided": 0.0})
    regrets, seeds = mean_regrets([*rows, {**rows[0], "arm": "priorband"}], METHODS)
    assert (list(regrets), seeds) == (["tpe+asha", "guided", "without tables"], 2)
    assert verdict(regrets) == "no verdict yet"
    assert mean_regrets([row for row in rows if row["seed"] == 0 or row["arm"] == "guided"], METHODS)[1] == 1
    assert "No method" in summarise([])


def test_a_search_has_one_regret_per_full_run(tasks: list[CurveTask], tmp_path: Path) -> None:
    from taskset import draw_figure, search

    row = search("random", tasks[0], tasks[1:], seed=1)
    assert len(row["regret"]) == 20 and row["regret"][-1] <= row["regret"][0] <= 1.0
    draw_figure([row], tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text().count("random") == 1


def test_a_promoted_proposal_goes_on_with_its_setting(tasks: list[CurveTask]) -> None:
    from taskset_rivals import _Runs

    search = CurveSearch(tasks[0], 100)
    runs, params = _Runs(search), tasks[0].params(7)
    assert runs.loss(params, 2) == -tasks[0].scores[7, 1]
    assert runs.loss({**params, "rate": params["rate"] * 1.0001}, 1) != runs.loss(params, 2), "another proposal"
    assert runs.loss(params, 4) == -tasks[0].scores[7, 3]
    assert search.trained[7] == 4 and len(search.path) == 5
    diverging = tasks[0].params(5)
    assert np.isfinite(runs.loss(diverging, 9)) and search.trained[5] == 9


def test_a_diverged_proposal_has_the_worst_loss_so_far(tasks: list[CurveTask]) -> None:
    from taskset_rivals import FIRST_LOSS, _Runs

    scores = tasks[0].scores.copy()
    scores[0] = -np.inf
    scores[5, 2:] = -np.inf
    task = replace(tasks[0], scores=scores)
    search = CurveSearch(task, 100)
    runs = _Runs(search)
    assert runs.loss(task.params(0), 1) == FIRST_LOSS
    worst = runs.loss(task.params(5), 1)
    runs.loss(task.params(7), 9)
    assert worst == -scores[5, 0] > -scores[7, 8]
    worst = max(worst, -scores[7, 8])
    assert runs.loss(task.params(0), 3) == runs.loss(task.params(5), 3) == runs.loss(task.params(5), 3) == worst
    assert search.trained == {0: 1, 5: 3, 7: 9}, "a diverged setting is not trained any more"


@pytest.mark.parametrize("name", ["priorband", "smac"])
def test_rivals_spend_the_budget(name: str, tasks: list[CurveTask]) -> None:
    pytest.importorskip("neps" if name == "priorband" else "smac")
    from taskset_rivals import RIVALS

    search = CurveSearch(tasks[0], 90)
    with pytest.raises(BudgetSpentError):
        RIVALS[name][1](search, tasks[1:], 0)
    assert len(search.path) == 90 and len(search.trained) < 90
    assert search.regret()[-1] < 0.5
