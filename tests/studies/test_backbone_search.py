"""The study of searches over four backbones: what it compares, and the killed search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"
TESTS = {"mobilenet_v2(width_mult=0.35)": 0.5, "mobilenet_v2": 0.7, "squeezenet1_0": 0.4}
LITE0 = "timm:tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows(dataset: str, search: float, lite0: float = 0.8, chosen: str = "mobilenet_v2") -> list[dict[str, Any]]:
    candidates = [{"name": name, "trials": 3} for name in (*TESTS, LITE0)]
    found = {"arm": "search", "test": search, "backbone": chosen, "candidates": candidates, "killed_after": 5}
    trained = [{"arm": name, "test": test} for name, test in {**TESTS, LITE0: lite0}.items()]
    return [{"dataset": dataset, "seconds": 100, "machine": "m", **row} for row in (found, *trained)]


def test_a_search_is_compared_with_the_best_and_the_average_network() -> None:
    from backbone_search import compare

    (row,) = compare(rows("scene15", 0.75))
    assert (row["best"], row["best_test"], row["chosen_test"], row["imagenet_test"]) == (LITE0, 0.8, 0.7, 0.8)
    assert row["average_test"] == pytest.approx(0.6)


def test_data_sets_without_all_trainings_are_left_out() -> None:
    from backbone_search import compare, summarise

    partial = rows("scene15", 0.75)[:-1]
    assert compare(partial) == []
    assert "0 of 3 data sets" in summarise(partial)


@pytest.mark.parametrize(
    ("search", "expected"), [(0.79, "confirmed"), (0.78, "confirmed in part"), (0.62, "not confirmed")]
)
def test_verdict(search: float, expected: str) -> None:
    from backbone_search import compare, verdict

    assert verdict(compare(rows("scene15", search + 1e-9) + rows("pbc8", search + 1e-9))) == expected


def test_the_report_has_a_verdict_only_with_all_data_sets() -> None:
    from backbone_search import DATASETS, summarise

    found = [row for dataset in DATASETS for row in rows(dataset, 0.85)]
    text = summarise(found)
    assert "**Confirmed.**" in text
    assert "- search minus tuned default on the best network: +5.0 (5.0 to 5.0)" in text
    assert "- network of the search minus best network: -10.0 (-10.0 to -10.0)" in text
    assert "| scene15 | 0.850 | mobilenet_v2 | timm:tf_efficientnet_lite0 | 0.800 | 0.600 | 0.800 |" in text
    assert "onfirmed" not in summarise(found[:10])


def test_a_search_that_ends_before_it_is_killed_is_an_error(tmp_path: Path) -> None:
    from backbone_search import start_and_kill

    with pytest.raises(RuntimeError, match=r"(?s)ended with 0 trials: .*no-such-dataset"):
        start_and_kill(tmp_path, {"dataset": tmp_path / "no-such-dataset", "budget": 2}, 1)
