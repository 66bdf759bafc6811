from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from nbt.tuning.intervals import (
    accuracy_interval,
    accuracy_standard_error,
    paired_interval,
    t_interval,
    wilson_interval,
)


def test_t_interval_is_scipys() -> None:
    values = [0.81, 0.84, 0.79, 0.9]
    found = t_interval(values)
    low, high = scipy_stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy_stats.sem(values))
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_value_has_no_interval() -> None:
    found = t_interval([0.5])
    assert (found.mean, found.low, found.high, found.n) == (0.5, None, None, 1)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


def test_t_interval_covers_as_often_as_it_says() -> None:
    chance = random.Random(0)
    covered = 0
    for _ in range(2000):
        found = t_interval([chance.gauss(0.3, 1) for _ in range(3)])
        covered += found.low <= 0.3 <= found.high
    assert 0.93 < covered / 2000 < 0.97


def test_pairing_removes_what_pairs_share() -> None:
    difference = paired_interval([0.9, 0.6, 0.3], [0.8, 0.5, 0.21])
    assert difference.mean == pytest.approx(0.29 / 3)
    assert difference.low > 0
    with pytest.raises(ValueError):
        paired_interval([0.1], [0.1, 0.2])


@given(st.integers(1, 2000), st.data())
def test_wilson_is_scipys_and_stays_inside(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    found = wilson_interval(right / n, n)
    expected = scipy_stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= found.low <= found.high <= 1


def test_wilson_of_nothing() -> None:
    assert wilson_interval(0.5, 0).low is None


def test_accuracy_error() -> None:
    assert accuracy_standard_error(0.5, 400) == pytest.approx(0.025, rel=0.01)
    assert accuracy_standard_error(0.8, 10_000) == pytest.approx(math.sqrt(0.16 / 10_000), rel=0.01)
    assert 0.005 < accuracy_standard_error(1.0, 200) < 0.01


def test_an_interval_of_accuracies_ends_where_accuracies_do() -> None:
    wide = accuracy_interval([0.2, 0.45])
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert accuracy_interval([0.5, 0.51, 0.52]) == t_interval([0.5, 0.51, 0.52])
    assert accuracy_interval([0.5]).low is None
