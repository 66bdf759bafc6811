"""The study of whole searches on judging data sets: its arms, its comparisons and its rule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nbt.tuning.space.space import Space
from tests.sample_study import sample_study

STUDIES = Path(__file__).resolve().parents[2] / "studies"
NAMES = tuple("abcdefghij")
TESTS = {"default": 0.8, "general": 0.7, "binary": 0.75}


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def row(dataset: str, arm: str, test: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    facts = {"budget": "20", "n_test": 100, "machine": "m", "difference": None, "cost": 20.0, "path": [[1.0, 0.6]]}
    return {"dataset": dataset, "arm": arm, "seed": seed, "test": test, "baseline": 0.6, **facts, **changes}


def rows(tests: dict[str, float] | None = None, names: tuple[str, ...] = NAMES) -> list[dict[str, Any]]:
    # The data sets differ by half a point, so that intervals have a width.
    levels = {**TESTS, **(tests or {})}
    return [row(name, arm, test + 0.005 * (i % 2)) for i, name in enumerate(names) for arm, test in levels.items()]


def test_general_tools_search_one_rate_and_the_length(tmp_path: Path) -> None:
    from live_search import options_of

    space = Space.load(options_of("general", tmp_path)["space"])
    names = {dimension.name for dimension in space.dimensions}
    assert {"head_lr", "optimizer", "mixup", "epochs"} < names and "transfer_depth" not in names
    assert space.same_as == {"body_lr": "head_lr"}
    assert (space.epochs.low, space.epochs.high, space.epochs.neutral) == (6, 24, 12)
    assert options_of("default", tmp_path) == {}


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ({}, "confirmed"),
        ({"general": 0.76}, "confirmed in part"),
        ({"binary": 0.79}, "confirmed in part"),
        ({"default": 0.7, "general": 0.62}, "confirmed in part"),
        ({"general": 0.8}, "not confirmed"),
        ({"default": 0.59, "general": 0.5}, "not confirmed"),
    ],
)
def test_verdict(tests: dict[str, float], expected: str) -> None:
    from live_search import verdict, with_gains

    assert verdict(with_gains(rows(tests))) == expected


def test_there_is_no_verdict_before_the_first_seed_of_all_data_sets_and_arms() -> None:
    from live_search import verdict, with_gains

    assert verdict(with_gains(rows()[:-1])) == ""
    assert verdict(with_gains(rows(names=NAMES[:9]))) == ""


def test_means_are_over_seeds_and_paired() -> None:
    from live_search import dataset_means

    found = [row("a", "default", 0.8), row("a", "default", 0.6, seed=1), row("a", "general", 0.5, seed=1)]
    assert dataset_means(found, "test", "default") == {"a": pytest.approx(0.7)}
    assert dataset_means(found, "test", "default", "general") == {"a": pytest.approx(0.1)}
    assert dataset_means(found, "test", "default", "binary") == {}


def test_removed_errors_of_a_perfect_default_recipe_are_finite() -> None:
    from live_search import with_gains

    (found,) = with_gains([row("a", "default", 0.99, baseline=1.0)])
    assert found["removed"] == pytest.approx(-1.0)


def test_the_share_of_the_rivals_cost() -> None:
    from live_search import cost_shares

    own = row("a", "default", 0.8, path=[[1.0, 0.5], [5.0, 0.7], [9.0, 0.8]])
    assert cost_shares([own, row("a", "general", 0.7, path=[[1.0, 0.4], [18.0, 0.65]])]) == [0.25]
    assert cost_shares([own, row("a", "general", 0.7, path=[[1.0, 0.9]])]) == [math.inf]
    assert cost_shares([own, row("b", "general", 0.7)]) == []


def test_the_best_trials_by_cost() -> None:
    from live_search import best_by_cost

    record = sample_study()
    path = best_by_cost(record)
    scores = [score for _, score in path]
    assert scores == sorted(set(scores)) and scores[-1] == pytest.approx(record.ranked()[0].score("accuracy"), abs=1e-5)
    assert path[-1][0] <= record.cost_budget + 1


def test_report() -> None:
    from live_search import summarise

    text = summarise([*rows()[:-1], row("a", "default", 0.5, seed=1, difference=[-0.1, -0.15, -0.05])])
    assert "30 of 60 searches" in text and "Verdict: none yet" in text
    assert "clearly below the default recipe: a (seed 1)" in text
    assert "| b | 0 | 0.805 (0.600) | 0.705 (0.600) | 0.755 (0.600) |" in text
    assert "- *default* minus *general*: +10.0" in text
    assert summarise([]).endswith("No search yet.\n")
