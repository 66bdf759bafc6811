"""The knee: where the gain stops increasing, in spite of noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbt.fit.knee import knee_depth, smooth


def test_an_increasing_curve_has_its_knee_at_the_end() -> None:
    gain = np.linspace(0.05, 0.9, 10)
    assert knee_depth(gain, np.zeros(10), 10_000) == 1.0


def test_a_plateau_has_its_knee_at_its_start() -> None:
    gain = np.minimum(np.linspace(0.1, 1.0, 20), 0.5)
    assert knee_depth(0.3 + gain, np.full(20, 0.3), 100_000) == pytest.approx(10 / 20, abs=0.051)


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_the_knee_little(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.01, 20)
    gain = np.minimum(np.linspace(0.1, 1.0, 20), 0.5)
    assert abs(knee_depth(0.3 + gain + noise, np.full(20, 0.3), 1000) - 0.5) <= 0.15


def test_a_gain_within_its_error_has_its_knee_at_the_input() -> None:
    assert knee_depth(np.array([0.2, 0.21, 0.2]), np.full(3, 0.2), 100) == 0.0
    assert knee_depth(np.full(8, 0.1), np.full(8, 0.4), 100) == 0.0


def test_few_units_are_not_smoothed() -> None:
    assert knee_depth(np.array([0.3, 0.9, 0.5]), np.full(3, 0.2), 1000) == pytest.approx(2 / 3)


def test_unknown_units_are_ignored() -> None:
    pretrained = np.array([0.3, math.nan, 0.9, 0.5])
    assert knee_depth(pretrained, np.full(4, 0.2), 1000) == pytest.approx(3 / 4)
    assert math.isnan(knee_depth(np.full(3, math.nan), np.zeros(3), 10))


def test_smoothing_averages_neighbours() -> None:
    values = np.array([0.0, 3.0, 6.0, math.nan, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(smooth(values), [1.5, 3.0, 4.5, 3.0, 0.0, 1.0, 1.5])
    assert np.isnan(smooth(np.full(7, math.nan))).all()
