"""Merit: the scale on which all models here compare accuracies, within a task and between tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# One unit of merit in log odds. Among the better half of random recipes a standard deviation is .3 to .5 log odds on
# tasks whose accuracies differ as much as .6 and .98, so that one kernel and one table of weights serve them all.
LOGIT_SCORE_UNIT = 0.4
# How far below the best a recipe is told from one that is worse still: broken recipes say nothing on good ones.
MAX_GAP_TO_BEST = 1.5 / LOGIT_SCORE_UNIT


def logit_score(accuracy: ArrayLike, images: int) -> FloatArray:
    """Returns log odds of accuracies over so many images, in units of merit.

    One hit and one miss are added, so that a perfect score on few images stays finite.
    """
    hits = np.asarray(accuracy, dtype=float) * images
    return np.asarray(np.log((hits + 1) / (images - hits + 1)) / LOGIT_SCORE_UNIT)


def logit_score_variance(accuracy: ArrayLike, images: int) -> FloatArray:
    """Returns the variance of `merit` that the draw of the images leaves, to first order."""
    share = np.asarray(accuracy, dtype=float)
    return np.asarray(1 / (images * share * (1 - share) + 1) / LOGIT_SCORE_UNIT**2)


def accuracy_from_logit_score(value: ArrayLike, images: int) -> FloatArray:
    """Returns the accuracy, 0 ... 1, that has a merit; the reverse of `merit`."""
    odds = np.exp(np.clip(np.asarray(value, dtype=float) * LOGIT_SCORE_UNIT, -50, 50))
    return np.asarray(np.clip((odds * (images + 1) - 1) / ((1 + odds) * images), 0.0, 1.0))
