"""Scores of the final runs of recipes, and intervals of their means and differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.training.metrics import Predictions
from nbt.tuning.intervals import (
    Interval,
    ValidationDesign,
    accuracy_interval,
    paired_interval,
    repeated_accuracy_interval,
    repeated_difference_interval,
)


@dataclass(frozen=True, eq=False)
class ImageScores:
    """The score of a run as a mean over its validation images.

    Attributes:
        index: Indices of the images in the task, int32 (n,).
        values: Contributions of the images, whose mean is the score, (n,); see `image_scores`.
    """

    index: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunScore:
    """Result of a final run.

    Attributes:
        value: Score of the metric of the study, 0 ... 1.
        loss: Validation loss in nats.
        images: Its scores per image; None if they are not known.
    """

    value: float
    loss: float = 0.0
    images: ImageScores | None = None


def image_scores(predictions: Predictions | None, metric: str) -> ImageScores | None:
    """Returns the scores per image; None without predictions, and for means over classes.

    They are the correctness of each image for the accuracy. The score exp(-v) of a log loss v is not a mean, and each
    image has the contribution to its first-order expansion (delta method), exp(-v) * (1 + v - its loss).

    Args:
        predictions: Predictions of the validation images by a run, or None.
        metric: One of `nbt.metrics.METRICS`.
    """
    if predictions is None or len(predictions.index) != len(predictions.labels):
        return None
    if metric == "accuracy":
        return ImageScores(predictions.index, (predictions.predicted == predictions.labels).astype(np.float64))
    if metric == "log_loss":
        losses = -predictions.log_probabilities[np.arange(len(predictions.labels)), predictions.labels]
        mean = float(losses.mean())
        return ImageScores(predictions.index, math.exp(-mean) * (1.0 + mean - losses))
    return None


def score_interval(scores: Sequence[RunScore], design: ValidationDesign | None) -> Interval:
    """Returns the mean score of a recipe over its final runs with its 95 % interval.

    Args:
        scores: At least one.
        design: How the runs are validated; None gives Student's t interval over the runs.
    """
    values = [score.value for score in scores]
    if design is None:
        return accuracy_interval(values)
    return repeated_accuracy_interval(values, design, _per_run([score.images for score in scores], design))


def score_difference(
    scores: Sequence[RunScore], reference: Sequence[RunScore], design: ValidationDesign | None
) -> Interval:
    """Returns the mean paired difference in score, `scores - reference`, with its 95 % interval.

    The recipes are compared image by image if both have scores of the same images in all runs.

    Args:
        scores: At least one.
        reference: Those of the other recipe in the same runs.
        design: How the runs are validated; None gives Student's t interval over the runs.
    """
    values, references = [score.value for score in scores], [score.value for score in reference]
    if design is None:
        return paired_interval(values, references)
    images = [_subtract(a.images, b.images) for a, b in zip(scores, reference, strict=True)]
    return repeated_difference_interval(values, references, design, _per_run(images, design))


def paired_difference(
    scores: Mapping[int, RunScore], reference: Mapping[int, RunScore], design: ValidationDesign | None
) -> Interval | None:
    """Returns `score_difference` over the runs that both recipes have, by their seeds; None without any."""
    seeds = sorted(scores.keys() & reference.keys())
    pairs = [scores[seed] for seed in seeds], [reference[seed] for seed in seeds]
    return score_difference(*pairs, design) if seeds else None


def _subtract(first: ImageScores | None, second: ImageScores | None) -> ImageScores | None:
    """Returns the differences per image; None if one is unknown, or the images differ."""
    if first is None or second is None or not np.array_equal(first.index, second.index):
        return None
    return ImageScores(first.index, first.values - second.values)


def _per_run(runs: Sequence[ImageScores | None], design: ValidationDesign) -> list[npt.NDArray[np.float64]] | None:
    """Returns the values of each run; None if some are unknown, or fixed images are not the same in all runs."""
    known = [run for run in runs if run is not None]
    is_same = not design.fixed or all(np.array_equal(known[0].index, run.index) for run in known)
    return [run.values for run in known] if len(known) == len(runs) and is_same else None
