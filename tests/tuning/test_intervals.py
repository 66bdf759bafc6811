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


def test_t_interval_equals_that_of_scipy() -> None:
    values = [0.81, 0.84, 0.79, 0.9]
    interval = t_interval(values)
    low, high = scipy_stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy_stats.sem(values))
    assert (interval.low, interval.high, interval.n) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_value_has_no_interval() -> None:
    interval = t_interval([0.5])
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.5, None, None, 1)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


def test_t_interval_has_the_nominal_coverage() -> None:
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        interval = t_interval([rng.gauss(0.3, 1) for _ in range(3)])
        covered += interval.low <= 0.3 <= interval.high
    assert 0.93 < covered / 2000 < 0.97


def test_pairing_removes_the_variance_that_pairs_share() -> None:
    difference = paired_interval([0.9, 0.6, 0.3], [0.8, 0.5, 0.21])
    assert difference.mean == pytest.approx(0.29 / 3)
    assert difference.low > 0
    with pytest.raises(ValueError):
        paired_interval([0.1], [0.1, 0.2])


@given(st.integers(1, 2000), st.data())
def test_wilson_interval_equals_that_of_scipy_and_lies_in_0_1(n: int, data: st.DataObject) -> None:
    n_correct = data.draw(st.integers(0, n))
    interval = wilson_interval(n_correct / n, n)
    expected = scipy_stats.binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= interval.low <= interval.high <= 1


def test_wilson_interval_of_no_images() -> None:
    assert wilson_interval(0.5, 0).low is None


def test_accuracy_standard_error() -> None:
    assert accuracy_standard_error(0.5, 400) == pytest.approx(0.025, rel=0.01)
    assert accuracy_standard_error(0.8, 10_000) == pytest.approx(math.sqrt(0.16 / 10_000), rel=0.01)
    assert 0.005 < accuracy_standard_error(1.0, 200) < 0.01


def test_an_interval_of_accuracies_is_clipped() -> None:
    wide = accuracy_interval([0.2, 0.45])
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert accuracy_interval([0.5, 0.51, 0.52]) == t_interval([0.5, 0.51, 0.52])
    assert accuracy_interval([0.5]).low is None
