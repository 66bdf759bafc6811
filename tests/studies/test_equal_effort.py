"""The search of equal size that every arm of a study has."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def run(merit: Callable[..., float]) -> tuple[tuple[float, ...], list[tuple[float, ...]], tuple[int, ...]]:
    """Returns the best combination, all that were tried, and the axes at an edge."""
    from equal_effort import Axis, search

    axes = (Axis((0.003, 0.01, 0.03), 3.0, 2), Axis((0.1, 0.2, 0.4), 2.0, 1, high=0.5))
    merits: dict[tuple[float, ...], float] = {}
    while True:
        values, is_complete, edges = search(axes, merits)
        if is_complete:
            return values, list(merits), edges
        assert values not in merits
        merits[values] = merit(*values)


def test_an_optimum_inside_takes_the_least_number_of_trials() -> None:
    best, tried, edges = run(lambda rate, share: -abs(math.log(rate / 0.01)) - abs(share - 0.2))
    assert best == (0.01, 0.2) and not edges
    assert tried == [(0.003, 0.2), (0.01, 0.2), (0.03, 0.2), (0.01, 0.1), (0.01, 0.4)]


def test_a_best_value_at_an_edge_is_followed_as_far_as_allowed() -> None:
    best, tried, edges = run(lambda rate, share: -rate - share)
    assert [rate for rate, _ in tried[:5]] == [0.003, 0.01, 0.03, 0.001, 0.0003333]
    assert best == (0.0003333, 0.05) and edges == (0, 1) and len(tried) == 8


def test_a_limit_is_reached_once_and_is_no_edge() -> None:
    best, tried, edges = run(lambda rate, share: share - abs(math.log(rate / 0.01)))
    assert best == (0.01, 0.5) and not edges
    assert [share for _, share in tried[3:]] == [0.1, 0.4, 0.5]


def test_of_equal_merits_the_value_that_was_tried_first_counts() -> None:
    best, tried, edges = run(lambda rate, share: 0.5)
    assert best == (0.003, 0.2) and not edges
    assert tried[3:] == [(0.001, 0.2), (0.003, 0.1), (0.003, 0.4)]
