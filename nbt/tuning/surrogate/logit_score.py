"""The logit score: the scale on which the surrogate models compare accuracies within and between tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# One unit of the logit score in log odds. Among the better half of random settings the standard deviation is 0.3 to 0.5
# log odds on tasks with accuracies as different as 0.6 and 0.98, so that one kernel and one set of prior weights suit
# all tasks.
LOGIT_SCORE_UNIT = 0.4
# Greatest gap to the best score that the models distinguish: settings that fail carry no information on good ones.
MAX_GAP_TO_BEST = 1.5 / LOGIT_SCORE_UNIT


def logit_score(accuracy: ArrayLike, images: int) -> FloatArray:
    """Returns the logit scores of accuracies: their log odds in units of `LOGIT_SCORE_UNIT`.

    One correct and one wrong image are added, so that a perfect accuracy on few images has a finite score.

    Args:
        accuracy: Accuracies, 0 ... 1.
        images: Number of images that the accuracies were measured on.
    """
    correct = np.asarray(accuracy, dtype=float) * images
    return np.asarray(np.log((correct + 1) / (images - correct + 1)) / LOGIT_SCORE_UNIT)


def logit_score_variance(accuracy: ArrayLike, images: int) -> FloatArray:
    """Returns the variance of logit scores due to the draw of the images, to first order.

    Args:
        accuracy: Accuracies, 0 ... 1.
        images: Number of images that the accuracies were measured on.
    """
    accuracy = np.asarray(accuracy, dtype=float)
    return np.asarray(1 / (images * accuracy * (1 - accuracy) + 1) / LOGIT_SCORE_UNIT**2)


def accuracy_from_logit_score(score: ArrayLike, images: int) -> FloatArray:
    """Returns the accuracies, 0 ... 1, with the given logit scores; the inverse of `logit_score`.

    Args:
        score: Logit scores.
        images: Number of images that the accuracies were measured on.
    """
    odds = np.exp(np.clip(np.asarray(score, dtype=float) * LOGIT_SCORE_UNIT, -50, 50))
    return np.asarray(np.clip((odds * (images + 1) - 1) / ((1 + odds) * images), 0.0, 1.0))
