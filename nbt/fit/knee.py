"""The curve of gain by depth: how far up the units pretrained weights are worth more than random ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nbt.fit.validation import FloatArray

MIN_UNITS_TO_SMOOTH = 6
"""Units from which on the curve is smoothed."""


def knee_depth(pretrained: npt.ArrayLike, random: npt.ArrayLike, samples: int) -> float:
    """Returns the share of units up to which the gain of pretrained over random weights still grows.

    The gain of each unit is averaged with its neighbours' (from 6 units on; fewer are taken as they are). The knee is
    the smallest depth whose averaged gain is within one standard error of the largest one; 0 where the largest is
    within two of none, since the largest of many is a little above none by chance. The standard error is that of a
    difference of two accuracies at the largest gain, sqrt((p (1 - p) + q (1 - q)) / N): binomial, and wide rather than
    narrow, since both are of the same images. It does not cover that another random network gives other accuracies.

    Args:
        pretrained: Accuracy of each unit, 0 ... 1, (units,); NaN where it is not known.
        random: The same of a random initialisation.
        samples: N that they were measured on.

    Returns:
        (i + 1) / units for the unit i at the knee, or 0; NaN where no gain is known.
    """
    own, other = np.asarray(pretrained, dtype=np.float64), np.asarray(random, dtype=np.float64)
    gain = smooth(own - other)
    if not np.isfinite(gain).any():
        return math.nan
    top = int(np.nanargmax(gain))
    accuracies = np.stack([smooth(own), smooth(other)])[:, top]
    error = math.sqrt(float((accuracies * (1 - accuracies)).sum()) / samples)
    if gain[top] <= 2 * error:
        return 0.0
    return float(np.flatnonzero(gain >= gain[top] - error)[0] + 1) / len(gain)


def smooth(values: FloatArray) -> FloatArray:
    """Returns means of three neighbours, of two at the ends; the values themselves where there are few; NaN ignored."""
    if len(values) < MIN_UNITS_TO_SMOOTH:
        return values
    padded = np.pad(values, 1, constant_values=np.nan)
    windows = np.stack([padded[:-2], padded[1:-1], padded[2:]])
    known = np.isfinite(windows)
    sums = np.where(known, windows, 0.0).sum(axis=0)
    means: FloatArray = np.divide(sums, known.sum(axis=0), out=np.full(len(values), np.nan), where=known.any(axis=0))
    return means
