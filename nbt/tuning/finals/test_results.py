"""Results on the test images: metrics with intervals beside always guessing, classes, confusions, and optimism.

All are functions of stored predictions. Studies without predictions, as of version 0.1 and of streams of tasks, have
the stored accuracy and log loss only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nbt.metrics import METRICS
from nbt.training.metrics import Predictions
from nbt.tuning.finals.bootstrap import metric_difference, metric_intervals
from nbt.tuning.intervals import Interval, value_interval
from nbt.tuning.storage.records import StudyRecord, TestRecord


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """Result of a model, or of always guessing, on the test images.

    Attributes:
        metric: The metric of the study.
        metrics: Name of each defined metric -> its value with a 95 % interval over the images.
        n: Number of test images.
        without_copies: The result on the test images without a near copy in training or validation, of which there may
            be none; None if all are, or if they are not known.
    """

    __test__ = False  # keeps pytest from collecting the class

    metric: str
    metrics: Mapping[str, Interval]
    n: int
    without_copies: TestResult | None = None

    @property
    def value(self) -> Interval | None:
        """Value of the study's metric with its interval; None if it is not known."""
        return self.metrics.get(self.metric)


@dataclass(frozen=True, kw_only=True)
class TestResults:
    """Results of a study on the test images.

    Attributes:
        recommended: Result of the recommended settings.
        baseline: Result of the baseline recipe; None if it is not known.
        majority: Result of always guessing, see `guess_majority`; None without predictions.
        difference: Paired difference of the metric, recommended minus baseline; None if they are the same recipe, or
            without predictions.
        optimism: Validation mean of the final runs minus the test value; None if one is not known.
    """

    __test__ = False

    recommended: TestResult
    baseline: TestResult | None
    majority: TestResult | None
    difference: Interval | None
    optimism: Interval | None


def test_results(record: StudyRecord) -> TestResults | None:
    """Returns the results of a study on the test images; None before the test evaluation."""
    tests = {test.name: test for test in record.test}
    if "recommended" not in tests:
        return None
    metric = record.config.metric
    predictions = {name: record.test_predictions(name) for name in tests}
    copied = record.copied_test_images
    results = {name: evaluate_test(test, predictions[name], metric, copied) for name, test in tests.items()}
    recommended, baseline = predictions["recommended"], predictions.get("baseline")
    final = record.final(record.recommended or "")
    validation = None if final is None else value_interval(final.validation, METRICS[metric])
    difference = None
    if recommended is not None and baseline is not None and recommended is not baseline:
        difference = metric_difference(recommended, baseline, metric)
    return TestResults(
        recommended=results["recommended"],
        baseline=results.get("baseline"),
        majority=None if recommended is None else majority_result(recommended, record.class_images, metric),
        difference=difference,
        optimism=None if validation is None else optimism(validation, results["recommended"].value),
    )


test_results.__test__ = False  # type: ignore[attr-defined]


def evaluate_test(
    test: TestRecord, predictions: Predictions | None, metric: str, copied: Sequence[int] = ()
) -> TestResult:
    """Returns the result of a model; from the stored accuracy and log loss without predictions.

    Args:
        test: The stored test evaluation.
        predictions: Predictions of the test images.
        metric: The metric of the study.
        copied: Indices in the task of the test images with a near copy in training or validation.
    """
    if predictions is not None:
        result = TestResult(metric=metric, metrics=metric_intervals(predictions), n=len(predictions.labels))
        distinct = _leave_out(predictions, tuple(copied))
        if distinct is None:
            return result
        n = len(distinct.labels)
        rest = TestResult(metric=metric, metrics=metric_intervals(distinct) if n else {}, n=n)
        return dataclasses.replace(result, without_copies=rest)
    loss = {} if test.loss is None else {"log_loss": Interval(mean=test.loss, low=None, high=None, n=test.n)}
    return TestResult(metric=metric, metrics={"accuracy": test.accuracy, **loss}, n=test.n)


@lru_cache(maxsize=4)
def _leave_out(predictions: Predictions, copied: tuple[int, ...]) -> Predictions | None:
    """Returns the predictions of the other images; None if there are none of `copied`."""
    kept = ~np.isin(predictions.index, copied)
    if kept.all():
        return None
    return Predictions(predictions.labels[kept], predictions.log_probabilities[kept], predictions.index[kept])


def majority_result(predictions: Predictions, class_images: Sequence[int], metric: str) -> TestResult | None:
    """Returns the result of always guessing on the images of predictions; None if the class counts are not known.

    Args:
        predictions: Predictions of the test images by a model.
        class_images: Number of training and validation images of each class, (C,); empty if it is not known.
        metric: The metric of the study.
    """
    if len(class_images) != predictions.log_probabilities.shape[1]:
        return None
    guessed = guess_majority(predictions, tuple(class_images))
    return TestResult(metric=metric, metrics=metric_intervals(guessed), n=len(guessed.labels))


@lru_cache(maxsize=4)
def guess_majority(predictions: Predictions, class_images: tuple[int, ...]) -> Predictions:
    """Returns predictions of the same images whose probabilities are the class frequencies of the labelled images.

    The predicted class is always the largest one, the first of equally large ones.
    """
    frequencies = np.array(class_images, dtype=np.float64) / sum(class_images)
    scores = np.log(np.maximum(frequencies, np.finfo(np.float32).eps))
    return Predictions(
        predictions.labels, np.broadcast_to(scores, (len(predictions.labels), len(scores))), predictions.index
    )


def optimism(validation: Interval | None, test: Interval | None) -> Interval | None:
    """Returns the difference of independent estimates, validation minus test, with its 95 % interval.

    The bounds combine those of both (method of variance estimates recovery: Zou and Donner 2008, doi
    10.1002/sim.3095; Newcombe 1998 for shares). They are None if one of them is.
    """
    if validation is None or test is None:
        return None
    mean, n = validation.mean - test.mean, test.n
    if validation.low is None or validation.high is None or test.low is None or test.high is None:
        return Interval(mean=mean, low=None, high=None, n=n)
    below = math.hypot(validation.mean - validation.low, test.high - test.mean)
    above = math.hypot(validation.high - validation.mean, test.mean - test.low)
    return Interval(mean=mean, low=mean - below, high=mean + above, n=n)


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Result of a class on the test images.

    Attributes:
        label: Its number, 0 ... C-1.
        name: Its name.
        images: Number of its test images.
        predicted: Number of test images that are predicted as this class.
        recall: Share of its images that are predicted as this class; None without images.
        precision: Share of the images predicted as this class that belong to it; None without any.
        f1: Harmonic mean of both; None without images and predictions.
        labelled: Number of its training and validation images; None if it is not known.
    """

    label: int
    name: str
    images: int
    predicted: int
    recall: float | None
    precision: float | None
    f1: float | None
    labelled: int | None


def class_results(
    predictions: Predictions, names: Sequence[str] = (), labelled: Sequence[int] = ()
) -> list[ClassResult]:
    """Returns the result of every class, the lowest recall first, classes without test images last.

    Args:
        predictions: Predictions of the test images.
        names: Names of the classes, (C,); their numbers if they are not known.
        labelled: Number of training and validation images of each class, (C,); empty if it is not known.
    """
    guessed = np.bincount(predictions.predicted, minlength=len(predictions.class_counts))
    rows = zip(predictions.class_counts.tolist(), guessed.tolist(), predictions.correct_counts.tolist(), strict=True)
    results = [
        ClassResult(
            label=label,
            name=class_name(label, names),
            images=images,
            predicted=predicted,
            recall=correct / images if images else None,
            precision=correct / predicted if predicted else None,
            f1=2 * correct / (images + predicted) if images + predicted else None,
            labelled=labelled[label] if label < len(labelled) else None,
        )
        for label, (images, predicted, correct) in enumerate(rows)
    ]
    return sorted(results, key=lambda result: math.inf if result.recall is None else result.recall)


def class_name(label: int, names: Sequence[str]) -> str:
    """Returns the name of a class, or its number if the names are not known."""
    return names[label] if label < len(names) else str(label)


def confusion_matrix(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Returns the number of images by true class (rows) and predicted class (columns), (C, C)."""
    n_classes = len(predictions.class_counts)
    cells = predictions.labels * n_classes + predictions.predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def largest_confusions(matrix: npt.NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """Returns the true class, the predicted class and the number of images of the most frequent errors.

    Args:
        matrix: As returned by `confusion_matrix`.
        limit: Largest number of errors.
    """
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [(int(true), int(guess), int(errors[true, guess])) for true, guess in pairs if errors[true, guess] > 0]
