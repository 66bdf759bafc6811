"""The study of what is known before the first trial: its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def run(arm: str, test: float, **changes: float) -> dict[str, Any]:
    """Returns a run."""
    changes = {"frozen_depth": 0.0, "transfer_depth": 1.0, "sp_mix": 0.0} | changes
    return {"arm": arm, "test": test, "changes": changes, "cpu_seconds": 10.0 * (1 - changes["frozen_depth"])}


def test_the_report_compares_runs_with_the_mean_of_the_arms_that_varied_the_axis() -> None:
    from prior_check import summarise

    by_dataset = {
        name: [
            run("binary", 0.2),
            run("depth", 0.6 + shift, frozen_depth=0.6),
            run("depth", 0.5),
            run("all", 0.4 - shift),
            run("mix", 0.3, sp_mix=0.9),
            run("rates", 0.58 + shift),
        ]
        for name, shift in (("a", 0.0), ("b", 0.02))
    }
    found = {"a": {"a rule": 0.5, "*rules*": 0.4}, "b": {"a rule": -0.1, "*rules*": 0.2}}
    lines = summarise(found, by_dataset).splitlines()
    assert "| a rule | +0.20 [-3.61, +4.01] | 1 of 2 |" in lines
    assert "| above .5 | 2 | +11.0 [-1.7, +23.7] | 4 |" in lines
    assert "| 0 | 4 | -5.5 [-11.9, +0.9] | 10 |" in lines
    assert "| rates | 100 % |" in lines and "| depth | 50 % |" in lines and "| binary | 0 % |" in lines


def test_a_source_that_scores_all_runs_alike_does_not_count(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import prior_check
    from small_tasks import Tasks

    runs = [run("depth", test, frozen_depth=share) for test, share in ((0.5, 0.4), (0.6, 0.6), (0.7, 0.8))]
    found = prior_check.correlations(Tasks(shared).task("trash6"), runs)
    assert "freeze when images are few" in found and "moderate unit rate" not in found
    assert all(-1 <= value <= 1 for value in found.values()) and {"recorded tasks", "*rules*", "*together*"} <= set(
        found
    )
