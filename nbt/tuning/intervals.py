"""Confidence intervals and standard errors of accuracies, which are shares in 0 ... 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any

from nbt.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

_Z_95 = NormalDist().inv_cdf(0.975)

_RUN_NOISE, _RUN_NOISE_DEGREES = 0.041, 2.5
# Standard deviation of the accuracy p over training runs, divided by sqrt(p (1 - p)), and the degrees of freedom of its
# square: the prior by the moments of Smyth (2004) from the recorded tasks of
# `studies/recorded/README.md`, which have .026 to .10.

_AGREEMENT = 0.5
# Assumed correlation of the correctness of two recipes, and of two runs of a recipe, on an image, where it was not
# measured.


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
    half_width = float(_student_quantile(n - 1)) * stdev(values) / math.sqrt(n)
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
    low, high = wilson_bounds(accuracy, n, _Z_95)
    return Interval(mean=accuracy, low=float(low), high=float(high), n=n)


def wilson_bounds(accuracies: ArrayLike, n: ArrayLike, quantile: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns the bounds of Wilson score intervals, clipped to 0 ... 1.

    Args:
        accuracies: Accuracies, 0 ... 1, (...).
        n: Effective numbers of images, above 0 and not necessarily whole, (...).
        quantile: Half widths in standard errors, 1.96 for a 95 % interval, (...).
    """
    import numpy as np

    p, n, quantile = (np.asarray(values, dtype=float) for values in (accuracies, n, quantile))
    scale = 1.0 + quantile**2 / n
    centre = (p + quantile**2 / (2 * n)) / scale
    half_width = quantile * np.sqrt(p * (1 - p) / n + quantile**2 / (4 * n**2)) / scale
    return np.maximum(0.0, centre - half_width), np.minimum(1.0, centre + half_width)


@dataclass(frozen=True, kw_only=True)
class ValidationDesign:
    """How repeated runs of a recipe are validated.

    Attributes:
        images: Number of validation images of a run, at least 1.
        train_images: Number of training images of a run, at least 1.
        fixed: Whether all runs have the same validation images; else every run has another train/validation split.
        comparisons: Number of differences that are examined, over all finalists and all looks at them. Each gets the
            error rate .05 / `comparisons` (Bonferroni; Dunn 1961, doi 10.1080/01621459.1961.10482090), so that at most
            5 % of the studies without any difference report one.
    """

    images: int
    train_images: int
    fixed: bool = False
    comparisons: int = 1


def repeated_accuracy_interval(
    accuracies: Sequence[float], design: ValidationDesign, images: Sequence[ArrayLike] | None = None
) -> Interval:
    """Returns the mean accuracy of a recipe over repeated runs with its 95 % interval, which lies in 0 ... 1.

    It is a Wilson score interval of as many images as have the variance of `mean_variance`. It is therefore never
    narrower than the Wilson interval of all validated images, and a single run has an interval, too. The interval of
    an accuracy is not corrected for several comparisons.

    Args:
        accuracies: Accuracy of each run, 0 ... 1, (runs,).
        design: How the runs are validated.
        images: Correctness of every image, 0 or 1, one array per run, (images,) each; None if it is unknown. Fixed
            images have the same order in all runs, which shows how much of the variance more runs average out.

    Raises:
        ValueError: There are no accuracies.
    """
    import numpy as np

    if not len(accuracies):
        raise ValueError("no accuracies")
    low, high = accuracy_bounds(np.asarray(accuracies, dtype=float), design, _variances_of_runs(images, design))
    return Interval(mean=fmean(accuracies), low=float(low), high=float(high), n=len(accuracies))


def repeated_difference_interval(
    accuracies: Sequence[float],
    reference: Sequence[float],
    design: ValidationDesign,
    images: Sequence[ArrayLike] | None = None,
) -> Interval:
    """Returns the mean paired difference of two recipes, `accuracies - reference`, with its 95 % interval.

    One run has no interval, because nothing shows how the difference varies between runs.

    Args:
        accuracies: Accuracy of each run, 0 ... 1, (runs,).
        reference: Accuracies of the other recipe in the same runs, (runs,).
        design: How the runs are validated.
        images: Difference in correctness on every image, -1, 0 or 1, one array per run, (images,) each; None if it is
            unknown. It shows on how many images the recipes disagree, as in the test of McNemar (1947). Fixed images
            have the same order in all runs.

    Raises:
        ValueError: There are no accuracies, or the numbers of runs differ.
    """
    import numpy as np

    pairs = np.array(list(zip(accuracies, reference, strict=True)), dtype=float)
    if not len(pairs):
        raise ValueError("no accuracies")
    mean = fmean(pairs[:, 0] - pairs[:, 1])
    if len(pairs) == 1:
        return Interval(mean=mean, low=None, high=None, n=1)
    variances = _variances_of_runs(images, design, signed=True)
    low, high = difference_bounds(pairs[:, 0], pairs[:, 1], design, variances)
    return Interval(mean=mean, low=float(low), high=float(high), n=len(pairs))


def accuracy_bounds(
    accuracies: FloatArray, design: ValidationDesign, images: tuple[FloatArray, FloatArray] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Returns the bounds of `repeated_accuracy_interval` for many studies, (...) each.

    Args:
        accuracies: Accuracy of each run, (..., runs).
        design: How the runs are validated.
        images: The result of `image_variances`, or None.
    """
    import numpy as np

    binomial = _binomial_variance(accuracies, design)
    image_variance = binomial if images is None else images[0] + images[1]
    variance, degrees = mean_variance(accuracies, image_variance, design, images)
    # The contributions of images to a log loss may vary more than those to an accuracy.
    n_images = np.minimum(binomial, image_variance) / variance
    return wilson_bounds(accuracies.mean(-1), n_images, _student_quantile(degrees))


def difference_bounds(
    accuracies: FloatArray,
    reference: FloatArray,
    design: ValidationDesign,
    images: tuple[FloatArray, FloatArray] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Returns the bounds of `repeated_difference_interval` for many studies, (...) each; see `accuracy_bounds`."""
    import numpy as np

    differences = accuracies - reference
    mean = differences.mean(-1)
    independent = _binomial_variance(accuracies, design) + _binomial_variance(reference, design)
    # Two recipes disagree at least on as many images as their numbers of correct images differ by.
    image_variance = np.maximum((1 - _AGREEMENT) * independent, np.abs(mean) - mean**2)
    if images is not None:
        image_variance = images[0] + images[1]
    variance, degrees = mean_variance(differences, image_variance, design, images)
    half_width = _student_quantile(degrees, 0.05 / design.comparisons) * np.sqrt(variance)
    return np.maximum(-1.0, mean - half_width), np.minimum(1.0, mean + half_width)


def mean_variance(
    values: FloatArray,
    image_variance: FloatArray,
    design: ValidationDesign,
    images: tuple[FloatArray, FloatArray] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Returns the variance of the mean of repeated runs and its degrees of freedom, (...) each.

    The variance between runs is estimated from the runs and from what is expected: the binomial variance of their
    images, which is known, and the usual variation between training runs, which has few degrees of freedom. They are
    averaged by their degrees of freedom (the moderated variance of Smyth 2004, doi 10.2202/1544-6115.1027), because the
    variance of three to five runs alone is too uncertain. The degrees of freedom of sums are those of Satterthwaite
    (1946, doi 10.2307/3002019).

    New splits have overlapping training sets, and the variance of the mean is 1 / runs + n_test / n_train times that of
    a single run (Nadeau and Bengio 2003, doi 10.1023/A:1024068626366). It is at least that of the binomial part. Fixed
    validation images are the same in all runs: what runs share on an image is not divided by the number of runs, only
    the variation between runs is. The variation due to other training images is then not included.

    Args:
        values: Accuracies or differences, (..., runs).
        image_variance: Variance of one image in one run, (...).
        design: How the runs are validated.
        images: For fixed images, the result of `image_variances`; None assumes that all runs classify the same images
            correctly, which gives wider intervals.
    """
    import numpy as np

    n_runs = values.shape[-1]
    if design.fixed:
        shared, own = (image_variance, 0.0 * image_variance) if images is None else images
    else:
        shared, own = 0.0 * image_variance, image_variance
    binomial, expected = own / design.images, image_variance * _RUN_NOISE**2
    measured = values.var(-1, ddof=1) if n_runs > 1 else 0.0 * image_variance
    prior_degrees = _RUN_NOISE_DEGREES * ((binomial + expected) / expected) ** 2
    degrees = prior_degrees + n_runs - 1
    between = (prior_degrees * (binomial + expected) + (n_runs - 1) * measured) / degrees
    if not design.fixed:
        return (1 / n_runs + design.images / design.train_images) * np.maximum(binomial, between), degrees
    variance = shared / design.images + between / n_runs
    return variance, degrees * (variance * n_runs / between) ** 2


def image_variances(outcomes: FloatArray, *, signed: bool = False) -> tuple[FloatArray, FloatArray]:
    """Returns the variance of an image's outcome: the part that all runs share, and that of a single run, (...).

    Their ratio is an intraclass correlation, which few images with errors hardly show; it is estimated together with
    one image of the correlation `_AGREEMENT`. Two images are added to as many independent ones as have the variance of
    all outcomes (Kish 1965), of which one is correct, or on one of which two recipes disagree (Agresti and Caffo 2000,
    Agresti and Min 2005), so that the variance is not 0 for perfect results.

    Args:
        outcomes: Correctness of the images, 0 or 1, or the difference of two recipes, (..., runs, images). Outcomes of
            different images in every run are those of a single run.
        signed: Whether these are differences.
    """
    n_runs, n = outcomes.shape[-2:]
    mean, square = outcomes.mean((-2, -1)), (outcomes**2).mean((-2, -1))
    within = outcomes.var(-2, ddof=1).mean(-1) if n_runs > 1 else 0.0 * mean
    shared = (outcomes.mean(-2).var(-1) - within / n_runs).clip(0.0)
    correlation = (_AGREEMENT + n * shared) / (1.0 + n * (shared + within))
    n_independent = n * n_runs / (1.0 + (n_runs - 1) * correlation)
    centre = (n_independent * mean + (0 if signed else 1)) / (n_independent + 2)
    variance = (n_independent * square + 1) / (n_independent + 2) - centre**2
    return correlation * variance, (1.0 - correlation) * variance


def _variances_of_runs(
    images: Sequence[ArrayLike] | None, design: ValidationDesign, *, signed: bool = False
) -> tuple[FloatArray, FloatArray] | None:
    """Returns `image_variances` of the runs of a study; None if the outcomes are unknown."""
    import numpy as np

    if images is None:
        return None
    runs = [np.asarray(run, dtype=float) for run in images]
    return image_variances(np.array(runs) if design.fixed else np.concatenate(runs)[None], signed=signed)


def _binomial_variance(accuracies: FloatArray, design: ValidationDesign) -> FloatArray:
    """Returns p (1 - p) after one correct and one wrong image are added (Agresti and Caffo 2000), (...)."""
    n = design.images * (1 if design.fixed else accuracies.shape[-1])
    share: FloatArray = (accuracies.mean(-1) * n + 1) / (n + 2)
    return share * (1 - share)


def accuracy_standard_error(accuracy: float, n: int) -> float:
    """Returns the standard error of an accuracy over `n` images.

    Two correct and two wrong predictions are added first (Agresti and Coull 1998), so that the error of a perfect
    accuracy on few images is not 0.
    """
    share = (accuracy * n + 2) / (n + 4)
    return math.sqrt(share * (1 - share) / (n + 4))


def _student_quantile(degrees: ArrayLike, error: float = 0.05) -> FloatArray:
    """Returns the quantiles of Student's t distributions that two-sided intervals with this error rate need."""
    import numpy as np
    from scipy.special import stdtrit

    return np.asarray(stdtrit(degrees, 1 - error / 2))


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


def value_interval(scores: Interval, metric: Metric) -> Interval:
    """Returns an interval of scores as one of the values of a metric."""
    return _map_interval(scores, metric, metric.value)


def difference_interval(scores: Interval, metric: Metric, reference: float) -> Interval:
    """Returns an interval of a difference of scores as one of a difference of values, see `Metric.difference`."""
    return _map_interval(scores, metric, lambda score: metric.difference(score, reference))


def _map_interval(scores: Interval, metric: Metric, convert: Callable[[float], float]) -> Interval:
    ends = (scores.low, scores.high) if metric.higher_is_better else (scores.high, scores.low)
    low, high = (None if end is None else convert(end) for end in ends)
    return Interval(mean=convert(scores.mean), low=low, high=high, n=scores.n)


def interval_json(interval: Interval | None) -> Any:
    """Returns an interval in JSON types; None stays None."""
    return None if interval is None else dataclasses.asdict(interval)
