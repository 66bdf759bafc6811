"""Calibration of predicted probabilities by temperature scaling (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from nbt.training.metrics import Predictions, log_loss

N_BINS = 15
_MAX_TEMPERATURE = 20.0


def fit_temperature(folds: Sequence[Predictions]) -> float:
    """Returns the temperature that minimises the mean cross-entropy of validation predictions.

    Logits divided by a temperature above 1 give less confident probabilities; the predicted classes stay the same.

    Args:
        folds: Predictions of the validation images by models of one recipe, one per run; they are pooled. Without any,
            the temperature is 1.

    Returns:
        The temperature, 1 / 20 ... 20.
    """
    if not folds:
        return 1.0
    from scipy.optimize import minimize_scalar

    pooled = Predictions(
        np.concatenate([fold.labels for fold in folds]), np.concatenate([fold.log_probabilities for fold in folds])
    )
    bound = math.log(_MAX_TEMPERATURE)
    solution = minimize_scalar(
        lambda log_temperature: log_loss(scale(pooled, math.exp(log_temperature))),
        bounds=(-bound, bound),
        method="bounded",
    )
    return round(math.exp(float(solution.x)), 4)


def scale(predictions: Predictions, temperature: float) -> Predictions:
    """Returns the predictions of the same model with its logits divided by a temperature above 0."""
    # Logarithms of probabilities are logits, up to a constant for each image.
    logits = predictions.log_probabilities / temperature
    logits = logits - logits.max(axis=1, keepdims=True)
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return dataclasses.replace(predictions, log_probabilities=scores)


def expected_calibration_error(predictions: Predictions) -> float:
    """Returns the mean difference between confidence and accuracy over bins of equal width, weighted by their images.

    The confidence is the probability of the predicted class; there are `N_BINS` bins, as in Guo et al. (2017).
    """
    confidence = np.exp(predictions.log_probabilities.max(axis=1))
    correct = predictions.predicted == predictions.labels
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=N_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of a model.

    Attributes:
        temperature: Temperature by which the exported model divides its logits.
        ece: Expected calibration error on the test images without it, 0 ... 1.
        ece_calibrated: The same with it.
        log_loss_calibrated: Log loss on the test images with it, in nats.
        folds: Number of validation runs that the temperature was fitted on.
        images: Number of test images.
    """

    temperature: float
    ece: float
    ece_calibrated: float
    log_loss_calibrated: float
    folds: int
    images: int


def calibrate(folds: Sequence[Predictions], test: Predictions) -> Calibration:
    """Returns the temperature fitted on validation predictions, and its effect on test predictions.

    Args:
        folds: As in `fit_temperature`.
        test: Predictions of the test images by the model of the same recipe that is exported, without temperature.
    """
    temperature = fit_temperature(folds)
    calibrated = scale(test, temperature)
    return Calibration(
        temperature=temperature,
        ece=expected_calibration_error(test),
        ece_calibrated=expected_calibration_error(calibrated),
        log_loss_calibrated=log_loss(calibrated),
        folds=len(folds),
        images=len(test.labels),
    )
