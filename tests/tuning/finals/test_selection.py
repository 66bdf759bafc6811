from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.finals.selection import Score, SelectionState, describe_comparison, select_finalist
from nbt.tuning.intervals import Interval

DEFAULT = "default recipe"


def scores(**runs: list[float]) -> dict[str, list[Score]]:
    """Runs by name; "default" stands for the default recipe."""
    return {DEFAULT if name == "default" else name: [Score(v) for v in values] for name, values in runs.items()}


def judge(max_seeds: int = 5, failed: dict[str, str] | None = None, **runs: list[float]) -> SelectionState:
    return select_finalist(scores(**runs), default=DEFAULT, max_seeds=max_seeds, failed=failed)


class TestRounds:
    def test_three_seeds_before_anything_is_decided(self) -> None:
        found = judge(a=[0.9, 0.9], default=[0.1, 0.1])
        assert (found.rounds, found.finished, found.leader) == (3, False, None)
        assert found.active == ("a", DEFAULT)

    def test_one_more_while_somebody_lacks_a_round(self) -> None:
        found = judge(a=[0.9, 0.9, 0.9], b=[0.9, 0.9, 0.9], default=[0.8, 0.9])
        assert (found.rounds, found.finished) == (3, False)

    def test_a_clear_lead_ends_it_at_three(self) -> None:
        found = judge(a=[0.90, 0.92, 0.91], b=[0.80, 0.81, 0.82], default=[0.70, 0.71, 0.72])
        assert (found.finished, found.leader, found.rounds) == (True, "a", 3)
        assert found.dropped == {"b": "worse than a after 3 seeds"}
        assert found.active == ("a", DEFAULT)

    def test_an_unclear_lead_takes_another_seed(self) -> None:
        found = judge(a=[0.90, 0.80, 0.91], default=[0.89, 0.81, 0.90])
        assert (found.finished, found.rounds) == (False, 4)

    def test_a_clear_lead_over_all_but_the_default_takes_another_seed(self) -> None:
        found = judge(a=[0.90, 0.80, 0.91], b=[0.70, 0.60, 0.71], default=[0.89, 0.81, 0.90])
        assert (found.finished, found.rounds) == (False, 4)
        assert found.active == ("a", DEFAULT)
        assert "b" in found.dropped

    def test_the_dropped_stay_dropped_and_need_no_more(self) -> None:
        found = judge(a=[0.90, 0.80, 0.91, 0.1], b=[0.70, 0.60, 0.71], default=[0.89, 0.81, 0.90, 0.99], max_seeds=4)
        assert (found.finished, found.leader) == (True, DEFAULT)
        assert "b" in found.dropped

    def test_the_bound_ends_it(self) -> None:
        runs = {"a": [0.90, 0.80, 0.91, 0.85, 0.85], "default": [0.89, 0.81, 0.90, 0.86, 0.84]}
        found = judge(**runs)
        assert (found.finished, found.leader, found.rounds) == (True, "a", 5)

    @pytest.mark.parametrize("max_seeds", [1, 2])
    def test_a_bound_below_three_decides_by_the_mean_and_drops_nobody(self, max_seeds: int) -> None:
        found = judge(max_seeds, a=[0.9] * max_seeds, b=[0.1] * max_seeds, default=[0.5] * max_seeds)
        assert (found.finished, found.leader, found.rounds, found.dropped) == (True, "a", max_seeds, {})

    def test_the_default_is_never_dropped(self) -> None:
        found = judge(a=[0.9, 0.9, 0.9], default=[0.1, 0.1, 0.1])
        assert found.finished and DEFAULT in found.active

    def test_pairs_tell_apart_what_means_cannot(self) -> None:
        """Splits differ by 20 points, the candidates by one on each."""
        found = judge(a=[0.9, 0.7, 0.8, 0.6, 0.75], default=[0.889, 0.691, 0.79, 0.59, 0.74])
        assert (found.finished, found.rounds, found.leader) == (True, 3, "a")


class TestLeader:
    def test_of_equal_means_the_default_leads(self) -> None:
        assert judge(1, a=[1.0], default=[1.0]).leader == DEFAULT
        assert judge(3, a=[0.1, 0.2, 0.3], default=[0.3, 0.1, 0.2]).leader == DEFAULT

    def test_then_the_lower_loss(self) -> None:
        runs = {"a": [Score(1.0, 0.3)], "b": [Score(1.0, 0.2)], DEFAULT: [Score(0.9)]}
        assert select_finalist(runs, default=DEFAULT, max_seeds=1).leader == "b"

    def test_the_default_may_win(self) -> None:
        found = judge(a=[0.8, 0.81, 0.79], b=[0.7, 0.71, 0.69], default=[0.9, 0.91, 0.89])
        assert (found.finished, found.leader) == (True, DEFAULT)
        assert set(found.dropped) == {"a", "b"}


class TestFailed:
    def test_they_are_out(self) -> None:
        found = judge(a=[], default=[0.5, 0.5, 0.5], failed={"a": "broken"})
        assert (found.finished, found.leader, found.dropped) == (True, DEFAULT, {"a": "broken"})

    def test_the_default_too(self) -> None:
        found = judge(a=[0.5, 0.6, 0.7], default=[0.9], failed={DEFAULT: "broken"})
        assert (found.finished, found.leader) == (True, "a")

    def test_all(self) -> None:
        found = judge(default=[], failed={DEFAULT: "broken"})
        assert (found.finished, found.leader) == (True, None)


@given(max_seeds=st.integers(1, 7), names=st.integers(1, 4), spread=st.floats(0, 0.3), seed=st.integers(0, 10**6))
def test_a_race_ends_within_its_bound(max_seeds: int, names: int, spread: float, seed: int) -> None:
    """Played seed by seed: it ends, the default and the leader have the same seeds, and nobody has more than these."""
    chance = random.Random(seed)
    runs: dict[str, list[Score]] = {name: [] for name in [*"abc"[: names - 1], DEFAULT]}
    found = select_finalist(runs, default=DEFAULT, max_seeds=max_seeds)
    while not found.finished:
        assert found.rounds <= max_seeds
        for name in found.active:
            while len(runs[name]) < found.rounds:
                runs[name].append(Score(0.5 + chance.gauss(0, spread)))
        found = select_finalist(runs, default=DEFAULT, max_seeds=max_seeds)
    assert found.leader in runs
    assert len(runs[DEFAULT]) == len(runs[found.leader]) == max(map(len, runs.values())) <= max_seeds
    assert set(found.dropped) | set(found.active) == set(runs)
    assert min(map(len, runs.values())) >= min(3, max_seeds)


class TestVerdict:
    def test_better(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.021, low=0.008, high=0.034, n=5))
        assert text == (
            "Trial 12 is better than the default recipe by 2.1 points (95 % interval +0.8 to +3.4, 5 seeds)."
        )

    def test_not_told_apart(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.004, low=-0.01, high=0.018, n=5))
        assert "cannot be told apart from the default recipe: +0.4 points" in text
        assert "-1.0 to +1.8" in text

    def test_one_seed(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.04, low=None, high=None, n=1))
        assert text == "Trial 12 cannot be told apart from the default recipe by one seed (+4.0 points)."

    def test_the_default_itself(self) -> None:
        assert describe_comparison(DEFAULT, DEFAULT, None).startswith("The default recipe is recommended")

    def test_without_a_default(self) -> None:
        assert "could not be run" in describe_comparison("trial 1", DEFAULT, None)
