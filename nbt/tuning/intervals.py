"""Confidence intervals and standard errors of accuracies, which are shares in 0 ... 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

_Z_95 = NormalDist().inv_cdf(0.975)


def t_interval(values: Sequence[float]) -> Interval:
    """Returns the mean of independent values with its 95 % Student t interval; a single value has no interval.

    Raises:
        ValueError: There are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = fmean(values)
    if n == 1:
        return Interval(mean=mean, low=None, high=None, n=1)
    half_width = _student_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half_width, high=mean + half_width, n=n)


def accuracy_interval(values: Sequence[float]) -> Interval:
    """Returns `t_interval` of accuracies, clipped to 0 ... 1."""
    interval = t_interval(values)
    if interval.low is None or interval.high is None:
        return interval
    return dataclasses.replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Returns the mean of the paired differences `values - reference` with its 95 % Student t interval."""
    return t_interval([a - b for a, b in zip(values, reference, strict=True)])


def wilson_interval(accuracy: float, n: int) -> Interval:
    """Returns an accuracy over `n` images with its 95 % Wilson score interval; 0 images give no interval.

    The interval lies in 0 ... 1 and is valid at 0 and 1 (Wilson 1927, doi 10.1080/01621459.1927.10502953).
    """
    if n == 0:
        return Interval(mean=accuracy, low=None, high=None, n=0)
    scale = 1.0 + _Z_95**2 / n
    centre = (accuracy + _Z_95**2 / (2 * n)) / scale
    half_width = _Z_95 * math.sqrt(accuracy * (1 - accuracy) / n + _Z_95**2 / (4 * n**2)) / scale
    return Interval(mean=accuracy, low=max(0.0, centre - half_width), high=min(1.0, centre + half_width), n=n)


def accuracy_standard_error(accuracy: float, n: int) -> float:
    """Returns the standard error of an accuracy over `n` images.

    Two correct and two wrong predictions are added first (Agresti and Coull 1998), so that the error of a perfect
    accuracy on few images is not 0.
    """
    share = (accuracy * n + 2) / (n + 4)
    return math.sqrt(share * (1 - share) / (n + 4))


def _student_quantile(degrees: int) -> float:
    """Returns the 0.975 quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Attributes:
        mean: The mean.
        low: Lower bound; None without an interval.
        high: Upper bound; None without an interval.
        n: Number of values, or of images for an interval of a single accuracy.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def interval_json(interval: Interval | None) -> Any:
    """Returns an interval in JSON types; None stays None."""
    return None if interval is None else dataclasses.asdict(interval)
