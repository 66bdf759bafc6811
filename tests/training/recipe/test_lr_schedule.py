"""The learning-rate schedule."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nbt.training.recipe.lr_schedule import lr_factor


@given(total=st.integers(1, 400), warmup=st.floats(0, 1))
def test_the_factor_rises_then_falls_between_zero_and_one(total: int, warmup: float) -> None:
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    warmup_steps = round(warmup * total)
    assert all(0 < factor <= 1 for factor in factors)
    assert all(a < b for a, b in itertools.pairwise(factors[:warmup_steps]))
    assert all(a > b for a, b in itertools.pairwise(factors[warmup_steps:]))


def test_the_peak_follows_the_warm_up() -> None:
    assert lr_factor(10, 100, 0.1) == 1.0
    assert lr_factor(0, 100, 0.0) == 1.0
    assert lr_factor(99, 100, 0.1) < 0.001
