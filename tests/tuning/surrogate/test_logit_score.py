from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.surrogate.logit_score import (
    LOGIT_SCORE_UNIT,
    MAX_GAP_TO_BEST,
    accuracy_from_logit_score,
    logit_score,
    logit_score_variance,
)

IMAGES = st.integers(1, 100_000)
SHARES = st.floats(0.0, 1.0)


@given(SHARES, IMAGES)
def test_round_trip(accuracy: float, images: int) -> None:
    assert accuracy_from_logit_score(logit_score(accuracy, images), images) == pytest.approx(accuracy, abs=1e-9)


@given(st.floats(-1e6, 1e6), IMAGES)
def test_any_score_is_an_accuracy(value: float, images: int) -> None:
    assert 0.0 <= accuracy_from_logit_score(value, images) <= 1.0


@given(SHARES, SHARES, IMAGES)
def test_the_score_grows_with_accuracy(first: float, second: float, images: int) -> None:
    low, high = sorted((first, second))
    assert logit_score(low, images) <= logit_score(high, images)


@given(SHARES, IMAGES)
def test_it_is_antisymmetric_in_accuracy(accuracy: float, images: int) -> None:
    assert logit_score(1 - accuracy, images) == pytest.approx(-logit_score(accuracy, images), abs=1e-6)


def test_a_unit_is_the_same_odds_ratio_at_any_accuracy() -> None:
    assert logit_score(0.5, 1000) == pytest.approx(0.0)
    assert LOGIT_SCORE_UNIT * logit_score(0.9, 10**6) == pytest.approx(math.log(9), abs=1e-4)
    assert pytest.approx(1.5) == MAX_GAP_TO_BEST * LOGIT_SCORE_UNIT, (
        "one and a half log odds below the best count alike"
    )


def test_a_perfect_accuracy_on_few_images_has_a_finite_score() -> None:
    assert math.isfinite(logit_score(1.0, 1)) and math.isfinite(logit_score(0.0, 1))
    assert logit_score(1.0, 20) < logit_score(0.999, 10_000)


def test_it_accepts_arrays() -> None:
    values = np.array([0.1, 0.5, 0.9])
    assert accuracy_from_logit_score(logit_score(values, 50), 50) == pytest.approx(values)
    assert logit_score_variance(values, 50).shape == (3,)


@pytest.mark.parametrize("accuracy", [0.3, 0.6, 0.9])
def test_the_variance_is_that_of_random_images(accuracy: float) -> None:
    hits = np.random.default_rng(0).binomial(400, accuracy, 20_000)
    assert logit_score_variance(accuracy, 400) == pytest.approx(np.var(logit_score(hits / 400, 400)), rel=0.1)


@given(SHARES, IMAGES)
def test_the_variance_stays_finite(accuracy: float, images: int) -> None:
    assert 0.0 < logit_score_variance(accuracy, images) <= 1 / LOGIT_SCORE_UNIT**2 + 1e-9


def test_the_variance_decreases_with_images() -> None:
    assert logit_score_variance(0.7, 1000) < logit_score_variance(0.7, 100) / 5
