from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.finals.plan import FinalsPlan, allowed_trainings, plan_finals


@pytest.mark.parametrize(
    ("trainings", "max_folds", "finalists", "folds", "in_total"),
    [
        (0, 5, 2, 3, 8),  # the least that compares a recipe with the baseline
        (8, 5, 2, 3, 8),
        (10.9, 5, 2, 4, 10),
        (11, 5, 3, 3, 11),
        (14, 5, 4, 3, 14),
        (22, 5, 4, 5, 22),
        (100, 5, 4, 5, 22),
        (100, 1, 4, 1, 6),
        (0, 1, 2, 1, 4),
    ],
)
def test_plans(trainings: float, max_folds: int, finalists: int, folds: int, in_total: int) -> None:
    plan = plan_finals(trainings, max_folds)
    assert plan == FinalsPlan(finalists=finalists, folds=folds)
    assert plan.trainings == in_total


@given(st.floats(0, 200), st.integers(1, 12))
def test_a_plan_exceeds_what_is_allowed_only_where_the_least_finals_do(trainings: float, max_folds: int) -> None:
    assert plan_finals(trainings, max_folds).trainings <= max(trainings, plan_finals(0, max_folds).trainings)


def test_half_of_the_trials_is_allowed() -> None:
    assert allowed_trainings(240, 12) == 10
