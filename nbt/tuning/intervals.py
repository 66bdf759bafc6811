"""Intervals and standard errors of accuracies; accuracies are shares, 0 ... 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

_Z_95 = NormalDist().inv_cdf(0.975)


def t_interval(values: Sequence[float]) -> Interval:
    """Returns the mean of independent values with its 95 % Student interval; one value has no interval.

    Raises:
        ValueError: There are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = fmean(values)
    if n == 1:
        return Interval(mean=mean, low=None, high=None, n=1)
    half = _student_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def accuracy_interval(values: Sequence[float]) -> Interval:
    """Returns `t_interval` of accuracies, cut to 0 ... 1, beyond which there are none."""
    found = t_interval(values)
    if found.low is None or found.high is None:
        return found
    return dataclasses.replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Returns the mean of `values - reference`, pair by pair, with its 95 % Student interval."""
    return t_interval([a - b for a, b in zip(values, reference, strict=True)])


def wilson_interval(accuracy: float, n: int) -> Interval:
    """Returns an accuracy over `n` images with its 95 % Wilson score interval.

    It stays inside 0 ... 1 and is honest at 0 and 1 (Wilson 1927, doi 10.1080/01621459.1927.10502953).
    """
    if n == 0:
        return Interval(mean=accuracy, low=None, high=None, n=0)
    shrink = 1.0 + _Z_95**2 / n
    centre = (accuracy + _Z_95**2 / (2 * n)) / shrink
    half = _Z_95 * math.sqrt(accuracy * (1 - accuracy) / n + _Z_95**2 / (4 * n**2)) / shrink
    return Interval(mean=accuracy, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


def accuracy_standard_error(accuracy: float, n: int) -> float:
    """Returns the standard error of one accuracy over `n` images.

    Two hits and two misses are added first (Agresti and Coull 1998), so that a perfect score on few images keeps the
    error that it really has.
    """
    share = (accuracy * n + 2) / (n + 4)
    return math.sqrt(share * (1 - share) / (n + 4))


def _student_quantile(degrees: int) -> float:
    """Returns the .975 quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None where one value gives no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int
