from __future__ import annotations

import numpy as np
import pytest

from nbt.training.calibration import (
    N_BINS,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    scale,
)
from nbt.training.metrics import Predictions, log_loss


def drawn(n: int, temperature: float, seed: int = 0) -> Predictions:
    """Returns predictions whose labels are drawn from the probabilities of their logits divided by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.normal(size=(n, 5))
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in probabilities])
    return Predictions(labels, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_recovered(temperature: float) -> None:
    folds = [drawn(3000, temperature, seed) for seed in range(3)]
    assert fit_temperature(folds) == pytest.approx(temperature, rel=0.05)


def test_it_is_the_minimum_of_the_pooled_cross_entropy() -> None:
    predictions = drawn(400, 2.0)
    found = fit_temperature([predictions])
    grid = np.exp(np.linspace(-3, 3, 601))
    best = grid[np.argmin([log_loss(scale(predictions, t)) for t in grid])]
    assert found == pytest.approx(best, rel=0.02)


def test_perfect_predictions_and_no_folds_give_a_finite_temperature() -> None:
    perfect = Predictions(np.arange(3), np.log(np.full((3, 3), 0.01) + 0.97 * np.eye(3)))
    assert 0.05 <= fit_temperature([perfect]) < 1.0
    assert fit_temperature([]) == 1.0


def test_scaling_divides_logits_and_keeps_classes() -> None:
    predictions = drawn(50, 1.0)
    scaled = scale(predictions, 2.0)
    assert np.array_equal(scaled.predicted, predictions.predicted)
    assert np.allclose(np.exp(scaled.log_probabilities).sum(axis=1), 1.0)
    expected = np.exp(predictions.log_probabilities) ** 0.5
    assert np.allclose(np.exp(scaled.log_probabilities), expected / expected.sum(axis=1, keepdims=True))
    assert np.allclose(scale(predictions, 1.0).log_probabilities, predictions.log_probabilities)


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    # Ten images with a confidence of .9, of which six are correct, and ten with .55, of which five are.
    high, low = np.log([[0.9, 0.1]] * 10), np.log([[0.55, 0.45]] * 10)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 5 + [1] * 5)
    predictions = Predictions(labels, np.concatenate([high, low]))
    assert expected_calibration_error(predictions) == pytest.approx(0.5 * 0.3 + 0.5 * 0.05)


def test_certain_predictions_belong_to_the_last_bin() -> None:
    certain = Predictions(np.array([0, 0]), np.array([[0.0, -40.0], [0.0, -40.0]]))
    assert expected_calibration_error(certain) == pytest.approx(0.0)
    assert N_BINS == 15


def test_overconfident_models_have_a_lower_error_with_the_temperature() -> None:
    result = calibrate([drawn(2000, 2.5, seed) for seed in range(2)], drawn(2000, 2.5, 9))
    assert result.temperature > 2.0
    assert result.ece > 0.15
    assert result.ece_calibrated < 0.04
    assert (result.folds, result.images) == (2, 2000)
