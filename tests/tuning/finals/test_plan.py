from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.finals.plan import plan_finals

SAME = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("trials", "costs", "max_folds", "finalists", "folds", "cost"),
    [
        (0, SAME, 5, 2, 3, 8),  # the least that compares a recipe with the baseline
        (16, SAME, 5, 2, 3, 8),
        (21.8, SAME, 5, 2, 4, 10),
        (22, SAME, 5, 3, 3, 11),
        (28, SAME, 5, 4, 3, 14),
        (44, SAME, 5, 4, 5, 22),
        (200, SAME, 5, 4, 5, 22),
        (200, SAME, 1, 4, 1, 6),
        (0, SAME, 1, 2, 1, 4),
        (200, SAME[:1], 5, 2, 5, 12),
        (10, (0.25, 0.25, 0.25), 5, 2, 3, 5),  # the trials cost ten trainings, not the finalist
        (13, (0.25, 0.25, 0.25), 5, 4, 3, 6.5),
        (13, (0.25, 2.0, 0.25), 5, 2, 4, 6.25),  # the second challenger is too expensive
    ],
)
def test_plans(
    trials: float, costs: tuple[float, ...], max_folds: int, finalists: int, folds: int, cost: float
) -> None:
    plan = plan_finals(trials, costs, max_folds)
    assert (plan.finalists, plan.folds, plan.cost) == (finalists, folds, pytest.approx(cost))
    assert plan.fits == (cost <= trials / 2)


def test_the_last_training_uses_more_images() -> None:
    assert plan_finals(0, SAME, 3, retraining=1.2).cost == pytest.approx(6 + 2 * 1.2)


def test_a_budget_in_time_is_another_bound() -> None:
    assert plan_finals(200, SAME, 5, max_cost=11.0).cost == 11
    assert plan_finals(200, SAME, 5, max_cost=-3.0).cost == 8


@given(
    st.floats(0, 200),
    st.lists(st.floats(0.01, 3.0), max_size=5),
    st.integers(1, 12),
    st.floats(0.5, 2.0),
    st.floats(0, 100) | st.just(math.inf),
)
def test_a_plan_exceeds_what_is_allowed_only_where_the_least_finals_do(
    trials: float, costs: list[float], max_folds: int, retraining: float, max_cost: float
) -> None:
    plan = plan_finals(trials, costs, max_folds, retraining=retraining, max_cost=max_cost)
    least = plan_finals(0, costs, max_folds, retraining=retraining)
    assert plan.cost <= max(min(trials / 2, max_cost), least.cost)
    assert plan.folds <= max_folds
