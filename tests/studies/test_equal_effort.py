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
    assert tried == [(0.01, 0.2), (0.003, 0.2), (0.03, 0.2), (0.01, 0.1), (0.01, 0.4)]


def test_a_best_value_at_an_edge_is_followed_as_far_as_allowed() -> None:
    best, tried, edges = run(lambda rate, share: -rate - share)
    assert [rate for rate, _ in tried[:5]] == [0.01, 0.003, 0.03, 0.001, 0.0003333]
    assert best == (0.0003333, 0.05) and edges == (0, 1) and len(tried) == 8


def test_a_limit_is_reached_once_and_is_no_edge() -> None:
    best, tried, edges = run(lambda rate, share: share - abs(math.log(rate / 0.01)))
    assert best == (0.01, 0.5) and not edges
    assert [share for _, share in tried[3:]] == [0.1, 0.4, 0.5]


def test_of_equal_merits_the_value_that_was_tried_first_counts() -> None:
    best, tried, edges = run(lambda rate, share: 0.5)
    assert best == (0.01, 0.2) and not edges
    assert tried[3:] == [(0.01, 0.1), (0.01, 0.4)]


def test_arms_are_searched_first_and_a_second_run_trains_nothing_again(tmp_path: Path) -> None:
    from argparse import Namespace

    from equal_effort import SEARCH_SEED, Axis, edges_line, rows_of, train_arms
    from study_rows import latest_rows

    keys = [("set", "a"), ("set", "b"), ("set", "untuned")]
    axes = (Axis((0.01, 0.03, 0.1), 3.0, 1),)
    calls: list[tuple[str, tuple[float, ...], int]] = []

    def train(key: tuple[str, ...], values: tuple[float, ...], seed: int) -> dict[str, float]:
        calls.append((key[-1], values, seed))
        return {"val": values[0] if key[-1] == "a" else 0.5}

    def axes_of(key: tuple[str, ...]) -> tuple[Axis, ...]:
        return () if key[-1] == "untuned" else axes

    for shard in ("0/2", "1/2", "0/2"):
        args = Namespace(shard=shard, minutes=1.0, rows=tmp_path / "rows.jsonl")
        train_arms(args, keys, axes_of, (0, 1), train)
    rows = latest_rows(tmp_path / "rows.jsonl")
    assert len(calls) == len(rows) == (4 + 2) + (3 + 2) + 2
    seeds_of_a = [seed for arm, _, seed in calls if arm == "a"]
    assert seeds_of_a == [SEARCH_SEED] * 4 + [0, 1]
    assert [row["changes"] for row in rows_of(rows, keys[0], (0, 1))] == [[0.3], [0.3]]
    assert [row["changes"] for row in rows_of(rows, keys[1], (0, 1))] == [[0.03], [0.03]]
    assert edges_line(rows, keys, axes_of, ("rate",)).endswith("range: set, a (rate).")
    late = Namespace(shard="0/1", minutes=0.0, rows=tmp_path / "none.jsonl")
    train_arms(late, keys, axes_of, (0,), train)
    assert len(calls) == len(rows)
