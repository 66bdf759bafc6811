"""The study of binary and non-binary transfer: its draws, its selections at equal cost, and its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"
NAMES = [f"d{n}" for n in range(10)]


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows_of(gain: dict[str, float], *, draws: int = 10, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Returns runs whose test accuracy is that of validation, .5 and a noise of the draw plus the gain of the arm."""
    from binary import ARMS

    rng = np.random.default_rng(0)
    rows = []
    for name in NAMES:
        for arm in ARMS:
            for number in range(draws):
                accuracy = 0.5 + gain.get(arm, 0.0) + 0.01 * float(rng.standard_normal())
                run = {"arm": arm, "dataset": name, "seed": number, "val": accuracy, "test": accuracy}
                rows.append({**run, "cpu_seconds": seconds if arm == "all" else 1.0})
    return rows


def test_draws_vary_only_the_axis_of_their_arm() -> None:
    from binary import draw
    from small_tasks import recipe

    binary = [recipe(draw("binary", "d", n)) for n in range(40)]
    assert {settings.sp_mix for settings in binary} == {0.0, 1.0}
    assert {settings.frozen_depth for settings in binary} == {0.0, 1.0}
    assert {settings.transfer_depth for settings in binary} == {0.0, 1.0}
    assert all(settings.body_lr == settings.head_lr for settings in binary)
    depth = [recipe(draw("depth", "d", n)) for n in range(40)]
    assert len({settings.transfer_depth for settings in depth}) > 10
    assert all(settings.body_lr == settings.head_lr and settings.sp_mix in (0.0, 1.0) for settings in depth)
    mix = [recipe(draw("mix", "d", n)) for n in range(40)]
    assert len({settings.sp_mix for settings in mix}) > 10
    assert {settings.frozen_depth for settings in mix} <= {0.0, 1.0}
    rates = [recipe(draw("rates", "d", n)) for n in range(40)]
    assert all(settings.body_lr != settings.head_lr for settings in rates)
    assert draw("all", "d", 3) == draw("all", "d", 3) != draw("all", "e", 3)


def test_the_best_by_validation_counts_within_its_cost() -> None:
    from binary import Selections

    runs = [{"val": v, "test": t, "cpu_seconds": 2.0} for v, t in ((0.9, 0.5), (0.8, 1.0))]
    selections = Selections(runs, unit=1.0)
    assert selections.total_cost == 4.0
    assert selections.at_cost(4.0) == 0.5  # the better test accuracy has the worse validation accuracy
    assert selections.at_cost(2.0) == pytest.approx(0.75, abs=0.1)  # one draw, either of them
    assert selections.at_cost(0.0) == selections.at_cost(2.0)


@pytest.mark.parametrize(
    ("gain", "draws", "expected"),
    [
        ({"all": 0.03}, 10, "confirmed"),
        ({"all": 0.007}, 10, "confirmed in part"),
        ({"rates": 0.03}, 10, "confirmed in part"),
        ({}, 10, "not confirmed"),
        ({"all": -0.05}, 10, "not confirmed"),
        ({"all": 0.03}, 9, "no verdict: 9 of 10 draws are complete"),
    ],
)
def test_the_rule(gain: dict[str, float], draws: int, expected: str) -> None:
    from binary import complete_draws, selections, verdict

    rows = rows_of(gain, draws=draws)
    assert verdict(selections(rows), len(complete_draws(rows))) == expected


def test_slower_runs_are_fewer_runs_at_equal_cost() -> None:
    from binary import differences, selections

    equal, slow = (selections(rows_of({}, seconds=seconds)) for seconds in (1.0, 5.0))
    assert np.mean(differences(slow, "all", 10)) < np.mean(differences(equal, "all", 10)) - 0.3


def test_the_report_needs_complete_draws(tmp_path: Path) -> None:
    from binary import draw_figure, summarise

    rows = rows_of({"all": 0.03})
    assert "Verdict: confirmed." in summarise(rows)
    assert "| minus binary, points [95 %] | 1 | 2 | 5 | 10 |" in summarise(rows)
    assert "no verdict: 0 of 10" in summarise([row for row in rows if row["arm"] != "mix"])
    assert "0 runs on 0" in summarise([])
    draw_figure(rows, tmp_path / "figure.svg")
    assert "binary" in (tmp_path / "figure.svg").read_text()
