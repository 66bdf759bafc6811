"""The knee of the gain curve: the depth up to which pretrained weights are better than random ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nbt.fit.validation import FloatArray

MIN_UNITS_TO_SMOOTH = 6
"""Minimum number of units for which the curve is smoothed."""


def knee_depth(pretrained: npt.ArrayLike, random: npt.ArrayLike, samples: int) -> float:
    """Returns the share of units up to which the gain of pretrained over random weights still increases.

    The gain of each unit is averaged with its neighbours' (for 6 units or more). The knee is the smallest depth whose
    averaged gain is within one standard error of the maximum; it is 0 if the maximum is at most two standard errors,
    because the maximum of many gains is slightly positive by chance. The standard error is that of a difference of two
    accuracies at the maximum, sqrt((p (1 - p) + q (1 - q)) / N): binomial, and conservative, because both accuracies
    are measured on the same images. It does not include the variation between random networks.

    Args:
        pretrained: Accuracy of each unit, 0 ... 1, (units,); NaN where it is unknown.
        random: Accuracy of each unit of a randomly initialised network, (units,).
        samples: Number of images N of the accuracies.

    Returns:
        (i + 1) / units for the unit i at the knee, or 0; NaN if no gain is known.
    """
    pretrained_accuracy, random_accuracy = (
        np.asarray(pretrained, dtype=np.float64),
        np.asarray(random, dtype=np.float64),
    )
    gain = smooth(pretrained_accuracy - random_accuracy)
    if not np.isfinite(gain).any():
        return math.nan
    top = int(np.nanargmax(gain))
    accuracies = np.stack([smooth(pretrained_accuracy), smooth(random_accuracy)])[:, top]
    error = math.sqrt(float((accuracies * (1 - accuracies)).sum()) / samples)
    if gain[top] <= 2 * error:
        return 0.0
    return float(np.flatnonzero(gain >= gain[top] - error)[0] + 1) / len(gain)


def smooth(values: FloatArray) -> FloatArray:
    """Returns moving averages over three values, two at the ends, ignoring NaN; short curves are returned unchanged."""
    if len(values) < MIN_UNITS_TO_SMOOTH:
        return values
    padded = np.pad(values, 1, constant_values=np.nan)
    windows = np.stack([padded[:-2], padded[1:-1], padded[2:]])
    known = np.isfinite(windows)
    sums = np.where(known, windows, 0.0).sum(axis=0)
    means: FloatArray = np.divide(sums, known.sum(axis=0), out=np.full(len(values), np.nan), where=known.any(axis=0))
    return means
