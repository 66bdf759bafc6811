from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.finals.winner import SelectionState, describe_comparison, select_finalist
from nbt.tuning.intervals import Interval
from nbt.tuning.run_scores import RunScore

DEFAULT = "default recipe"


def scores(**runs: list[float]) -> dict[str, list[RunScore]]:
    """Returns the runs by name; "default" is the default recipe."""
    return {DEFAULT if name == "default" else name: [RunScore(v) for v in values] for name, values in runs.items()}


def select(max_seeds: int = 5, failed: dict[str, str] | None = None, **runs: list[float]) -> SelectionState:
    return select_finalist(scores(**runs), default=DEFAULT, max_seeds=max_seeds, failed=failed)


class TestRounds:
    def test_no_decision_before_three_seeds(self) -> None:
        state = select(a=[0.9, 0.9], default=[0.1, 0.1])
        assert (state.rounds, state.finished, state.leader) == (3, False, None)
        assert state.active == ("a", DEFAULT)

    def test_no_decision_while_a_finalist_lacks_a_round(self) -> None:
        state = select(a=[0.9, 0.9, 0.9], b=[0.9, 0.9, 0.9], default=[0.8, 0.9])
        assert (state.rounds, state.finished) == (3, False)

    def test_a_clear_lead_ends_the_selection_at_three_seeds(self) -> None:
        state = select(a=[0.90, 0.92, 0.91], b=[0.80, 0.81, 0.82], default=[0.70, 0.71, 0.72])
        assert (state.finished, state.leader, state.rounds) == (True, "a", 3)
        assert state.dropped == {"b": "worse than a after 3 seeds"}
        assert state.active == ("a", DEFAULT)

    def test_an_unclear_lead_needs_another_seed(self) -> None:
        state = select(a=[0.90, 0.80, 0.91], default=[0.89, 0.81, 0.90])
        assert (state.finished, state.rounds) == (False, 4)

    def test_a_clear_lead_over_all_but_the_default_recipe_needs_another_seed(self) -> None:
        state = select(a=[0.90, 0.80, 0.91], b=[0.70, 0.60, 0.71], default=[0.89, 0.81, 0.90])
        assert (state.finished, state.rounds) == (False, 4)
        assert state.active == ("a", DEFAULT)
        assert "b" in state.dropped

    def test_dropped_finalists_stay_dropped_and_need_no_more_seeds(self) -> None:
        state = select(a=[0.90, 0.80, 0.91, 0.1], b=[0.70, 0.60, 0.71], default=[0.89, 0.81, 0.90, 0.99], max_seeds=4)
        assert (state.finished, state.leader) == (True, DEFAULT)
        assert "b" in state.dropped

    def test_the_maximum_number_of_seeds_ends_the_selection(self) -> None:
        runs = {"a": [0.90, 0.80, 0.91, 0.85, 0.85], "default": [0.89, 0.81, 0.90, 0.86, 0.84]}
        state = select(**runs)
        assert (state.finished, state.leader, state.rounds) == (True, "a", 5)

    @pytest.mark.parametrize("max_seeds", [1, 2])
    def test_below_three_seeds_the_mean_decides_and_none_is_dropped(self, max_seeds: int) -> None:
        state = select(max_seeds, a=[0.9] * max_seeds, b=[0.1] * max_seeds, default=[0.5] * max_seeds)
        assert (state.finished, state.leader, state.rounds, state.dropped) == (True, "a", max_seeds, {})

    def test_the_default_recipe_is_never_dropped(self) -> None:
        state = select(a=[0.9, 0.9, 0.9], default=[0.1, 0.1, 0.1])
        assert state.finished and DEFAULT in state.active

    def test_paired_differences_distinguish_finalists_whose_means_overlap(self) -> None:
        """Splits differ by 20 points, finalists by one point on each split."""
        state = select(a=[0.9, 0.7, 0.8, 0.6, 0.75], default=[0.889, 0.691, 0.79, 0.59, 0.74])
        assert (state.finished, state.rounds, state.leader) == (True, 3, "a")


class TestLeader:
    def test_the_default_recipe_leads_among_equal_means(self) -> None:
        assert select(1, a=[1.0], default=[1.0]).leader == DEFAULT
        assert select(3, a=[0.1, 0.2, 0.3], default=[0.3, 0.1, 0.2]).leader == DEFAULT

    def test_the_lower_loss_leads_among_other_equal_means(self) -> None:
        runs = {"a": [RunScore(1.0, 0.3)], "b": [RunScore(1.0, 0.2)], DEFAULT: [RunScore(0.9)]}
        assert select_finalist(runs, default=DEFAULT, max_seeds=1).leader == "b"

    def test_the_default_recipe_may_lead(self) -> None:
        state = select(a=[0.8, 0.81, 0.79], b=[0.7, 0.71, 0.69], default=[0.9, 0.91, 0.89])
        assert (state.finished, state.leader) == (True, DEFAULT)
        assert set(state.dropped) == {"a", "b"}


class TestCheaper:
    COSTS = {"a": 1.0, "b": 0.4, "c": 0.3, DEFAULT: 1.0}

    def select(self, **runs: list[float]) -> SelectionState:
        return select_finalist(scores(**runs), default=DEFAULT, max_seeds=3, costs=self.COSTS)

    def test_the_cheapest_that_cannot_be_distinguished_is_recommended_if_nothing_beats_the_default_recipe(self) -> None:
        state = self.select(a=[0.8, 0.7, 0.9], b=[0.7, 0.8, 0.85], c=[0.3, 0.2, 0.4], default=[0.75, 0.75, 0.85])
        assert (state.leader, state.best) == ("b", "a")
        assert "c" in state.dropped

    def test_a_recipe_that_beats_the_default_recipe_is_recommended_at_its_cost(self) -> None:
        state = self.select(a=[0.8, 0.81, 0.79], b=[0.79, 0.8, 0.81], default=[0.5, 0.51, 0.49])
        assert (state.leader, state.best) == ("a", "a")

    def test_a_cheaper_recipe_with_a_lower_mean_is_not_recommended(self) -> None:
        # b is 7 points below a, with a 95 % interval of 7.5 points on either side.
        state = self.select(a=[0.8, 0.8, 0.8], b=[0.70, 0.76, 0.73], default=[0.79, 0.8, 0.8])
        assert "b" not in state.dropped
        assert (state.leader, state.best) == ("a", "a")

    def test_about_equal_costs_do_not_decide(self) -> None:
        runs = scores(a=[0.8, 0.7, 0.9], default=[0.75, 0.75, 0.85])
        state = select_finalist(runs, default=DEFAULT, max_seeds=3, costs={"a": 1.0, DEFAULT: 0.95})
        assert (state.leader, state.best) == ("a", "a")

    def test_the_default_recipe_is_recommended_if_it_is_cheaper(self) -> None:
        runs = scores(a=[0.8, 0.7, 0.9], default=[0.75, 0.75, 0.85])
        state = select_finalist(runs, default=DEFAULT, max_seeds=3, costs={"a": 1.0, DEFAULT: 0.5})
        assert (state.leader, state.best) == (DEFAULT, "a")


class TestSimpler:
    COSTS = {"a": 1.0, "b": 1.0, "c": 0.2, DEFAULT: 1.0}

    def select(self, *simpler: str, **runs: list[float]) -> SelectionState:
        return select_finalist(scores(**runs), default=DEFAULT, max_seeds=3, costs=self.COSTS, simpler=simpler)

    def test_a_simpler_recipe_that_is_as_good_is_recommended_whatever_others_cost(self) -> None:
        runs = {"a": [0.7, 0.8, 0.85], "c": [0.7, 0.8, 0.85], "default": [0.8, 0.7, 0.9]}
        state = self.select("a", **runs)
        assert (state.leader, state.best) == ("a", DEFAULT)
        assert self.select(**runs).leader == "c"

    def test_the_leader_stays_if_it_is_simpler_itself(self) -> None:
        state = self.select("a", "b", a=[0.7, 0.8, 0.84], b=[0.8, 0.7, 0.9], default=[0.75, 0.75, 0.85])
        assert (state.leader, state.best) == ("b", "b")

    def test_a_simpler_recipe_with_a_lower_mean_is_not_recommended(self) -> None:
        state = self.select("b", b=[0.70, 0.76, 0.73], default=[0.79, 0.8, 0.8])
        assert (state.leader, state.best) == (DEFAULT, DEFAULT)

    def test_it_is_recommended_also_if_others_beat_the_default_recipe(self) -> None:
        state = self.select("b", a=[0.8, 0.81, 0.79], b=[0.79, 0.8, 0.805], default=[0.5, 0.51, 0.49])
        assert (state.leader, state.best) == ("b", "a")


class TestFailed:
    def test_a_failed_finalist_is_dropped(self) -> None:
        state = select(a=[], default=[0.5, 0.5, 0.5], failed={"a": "broken"})
        assert (state.finished, state.leader, state.dropped) == (True, DEFAULT, {"a": "broken"})

    def test_a_failed_default_recipe_is_dropped(self) -> None:
        state = select(a=[0.5, 0.6, 0.7], default=[0.9], failed={DEFAULT: "broken"})
        assert (state.finished, state.leader) == (True, "a")

    def test_without_finalists_there_is_no_leader(self) -> None:
        state = select(default=[], failed={DEFAULT: "broken"})
        assert (state.finished, state.leader) == (True, None)


@given(max_seeds=st.integers(1, 7), names=st.integers(1, 4), spread=st.floats(0, 0.3), seed=st.integers(0, 10**6))
def test_the_selection_ends_within_the_maximum_number_of_seeds(
    max_seeds: int, names: int, spread: float, seed: int
) -> None:
    """Checks that the default recipe and the leader have equally many seeds, and no finalist has more."""
    rng = random.Random(seed)
    runs: dict[str, list[RunScore]] = {name: [] for name in [*"abc"[: names - 1], DEFAULT]}
    state = select_finalist(runs, default=DEFAULT, max_seeds=max_seeds)
    while not state.finished:
        assert state.rounds <= max_seeds
        for name in state.active:
            while len(runs[name]) < state.rounds:
                runs[name].append(RunScore(0.5 + rng.gauss(0, spread)))
        state = select_finalist(runs, default=DEFAULT, max_seeds=max_seeds)
    assert state.leader in runs
    assert len(runs[DEFAULT]) == len(runs[state.leader]) == max(map(len, runs.values())) <= max_seeds
    assert set(state.dropped) | set(state.active) == set(runs)
    assert min(map(len, runs.values())) >= min(3, max_seeds)


class TestDescribeComparison:
    def test_better(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.021, low=0.008, high=0.034, n=5))
        assert text == (
            "Trial 12 is better than the default recipe by 2.1 points (95 % interval +0.8 to +3.4, 5 seeds)."
        )

    def test_runs_of_the_default_recipe_that_diverged_are_named(self) -> None:
        interval = Interval(mean=0.34, low=0.18, high=0.5, n=3)
        text = describe_comparison("trial 12", DEFAULT, interval, diverged=3)
        assert text.endswith("3 seeds). The default recipe diverged in 3 of these runs, which count as the worst.")

    def test_not_distinguishable(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.004, low=-0.01, high=0.018, n=5))
        assert "cannot be distinguished from the default recipe: +0.4 points" in text
        assert "-1.0 to +1.8" in text

    def test_cheaper(self) -> None:
        interval = Interval(mean=0.004, low=-0.01, high=0.018, n=3)
        costs = {"trial 12": 0.5, "trial 3": 1.0, DEFAULT: 1.0}
        text = describe_comparison("trial 12", DEFAULT, interval, cheaper_than="trial 3", costs=costs)
        assert text.endswith(
            "Nothing is better than the default recipe beyond noise, so trial 12 is recommended because it is cheaper: "
            "about 50 % of the training time of trial 3."
        )
        text = describe_comparison(DEFAULT, DEFAULT, None, cheaper_than="trial 3", costs={DEFAULT: 0.8, "trial 3": 1.0})
        assert "so the default recipe is recommended because it is cheaper: about 80 %" in text

    def test_better_and_cheaper_than_the_default_recipe(self) -> None:
        interval = Interval(mean=0.253, low=0.136, high=0.371, n=3)
        costs = {"trial 30": 0.44, DEFAULT: 1.0}
        text = describe_comparison("trial 30", DEFAULT, interval, cheaper_than=DEFAULT, costs=costs)
        assert text == describe_comparison("trial 30", DEFAULT, interval)

    def test_better_than_the_default_recipe_and_cheaper_than_the_best(self) -> None:
        interval = Interval(mean=0.253, low=0.136, high=0.371, n=3)
        costs = {"trial 30": 0.5, "trial 3": 2.0, DEFAULT: 1.0}
        text = describe_comparison("trial 30", DEFAULT, interval, cheaper_than="trial 3", costs=costs)
        assert text == (
            "Trial 30 is better than the default recipe by 25.3 points (95 % interval +13.6 to +37.1, 3 seeds). "
            "Nothing is better than trial 30 beyond noise, and it is cheaper than trial 3, whose mean is higher: about "
            "25 % of its training time."
        )

    def test_from_scratch(self) -> None:
        interval = Interval(mean=-0.004, low=-0.018, high=0.01, n=3)
        text = describe_comparison("trial 1", DEFAULT, interval, needs_no_weights=True)
        assert text.startswith("Trial 1 cannot be distinguished from the default recipe: -0.4 points ")
        assert text.endswith(
            " Nothing is better than trial 1 beyond noise. It is recommended because it trains from scratch, and the "
            "pretrained weights have no advantage over random ones."
        )
        better = describe_comparison(
            "trial 1", DEFAULT, Interval(mean=0.2, low=0.1, high=0.3, n=3), needs_no_weights=True
        )
        assert better.startswith("Trial 1 is better than the default recipe by 20.0 points ")
        assert better.endswith("have no advantage over random ones.")

    def test_one_seed(self) -> None:
        text = describe_comparison("trial 12", DEFAULT, Interval(mean=0.04, low=None, high=None, n=1))
        assert text == "Trial 12 cannot be distinguished from the default recipe by one seed (+4.0 points)."

    def test_the_default_recipe_itself(self) -> None:
        assert describe_comparison(DEFAULT, DEFAULT, None).startswith("The default recipe is recommended")

    def test_without_runs_of_the_default_recipe(self) -> None:
        assert "could not be run" in describe_comparison("trial 1", DEFAULT, None)
