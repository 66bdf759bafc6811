"""The study of optimism: its means over data sets, and the gain on the images that no search read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def row(dataset: str, *, pool: float = 0.7, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "seed": 0,
        "budget": "12",
        "optimism": 0.0,
        "validation": {"mean": 0.7},
        "test": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 100},
        "baseline": 0.6,
        "pool": {"value": pool, "n": 400},
        "clock": {"prepare": 1.0, "profile": 2.0, "trials": 10.0, "finals": 3.0, "train": 2.0, "report": 0.0},
        "load": 1.0,
        "machine": "a machine",
        **changes,
    }


def test_the_gain_on_the_pool_counts_searches_whose_default_recipe_was_evaluated() -> None:
    from optimism import summarise

    rows = [row("a", baseline_pool=0.6), row("a", baseline_pool=0.65, seed=1), row("b", baseline_pool=0.6), row("c")]
    text = summarise(rows)
    # Gains of .075 and .1; .25 and (.1 / .4 + .05 / .35) / 2 of the errors.
    assert "pool: +8.7 [-7.1, +24.6] points; it removes +22.3" in text
    assert "% of the baseline's errors (3 searches)" in text
    assert "| c | 0 | 0.700 | 0.700 [0.600, 0.800] | 0.600 | 0.700 | nan |" in text
    assert "pool: not measured" in summarise([row("a"), row("b")])


def test_coverage_and_durations() -> None:
    from optimism import summarise

    text = summarise([row("a"), row("b", pool=0.85)])
    assert "contain the accuracy on the pool: 50 %" in text
    # 1.96 standard errors of 100 images against those of the difference to 400: 2 Phi(1.96 / sqrt(1.25)) - 1.
    assert "a correct 95 % interval would contain 92 %" in text
    assert "Whole relative to the trials: median 1.80" in text
    assert "Finals and last training relative to the trials: median 0.50" in text


def test_rows_survive_an_interrupted_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optimism import read_rows, write_rows

    write_rows(tmp_path / "rows.jsonl", [row("a")])

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "rows.jsonl", [row("a"), row("b")])
    assert read_rows(tmp_path / "rows.jsonl") == [row("a")]
