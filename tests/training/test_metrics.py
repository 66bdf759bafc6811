"""Metrics: values that can be computed by hand, and agreement with scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from nbt.metrics import METRICS, Metric
from nbt.training.evaluation import predictions_from_logits
from nbt.training.metrics import COMPUTE, OTHER_METRICS, Predictions


def predictions(probabilities: Any, labels: Any) -> Predictions:
    return Predictions(np.array(labels), np.log(np.array(probabilities, dtype=float)))


def reference_auroc(labels: Any, probabilities: Any) -> float:
    """Returns the mean of scikit-learn's binary areas over the classes that occur."""
    return float(np.mean([reference.roc_auc_score(labels == k, probabilities[:, k]) for k in np.unique(labels)]))


REFERENCES: dict[str, Callable[..., float]] = {
    "accuracy": lambda labels, p: reference.accuracy_score(labels, p.argmax(1)),
    "balanced_accuracy": lambda labels, p: reference.balanced_accuracy_score(labels, p.argmax(1)),
    "macro_f1": lambda labels, p: reference.f1_score(labels, p.argmax(1), average="macro"),
    "auroc": reference_auroc,
    "log_loss": lambda labels, p: reference.log_loss(labels, p, labels=np.arange(p.shape[1])),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("images", "classes", "ties"), [(7, 2, False), (40, 5, True), (300, 60, False), (60, 200, True)]
)
def test_values_equal_those_of_scikit_learn(metric: Metric, images: int, classes: int, ties: bool) -> None:
    rng = np.random.default_rng(images)
    logits = rng.normal(size=(images, classes))
    labels = rng.choice(rng.permutation(classes)[: max(2, classes - 3)], size=images)
    labels[:2] = rng.permutation(classes)[:2]
    if ties:
        logits = logits.round()
    computed = predictions_from_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    probabilities = np.exp(computed.log_probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that do not occur
        expected = REFERENCES[metric.name](labels, probabilities)
    value = COMPUTE[metric.name](computed)
    assert value == pytest.approx(expected, rel=1e-12)
    assert metric.low <= value <= metric.high


def test_auroc_counts_ties_as_one_half() -> None:
    # Pairs (image of class 0, other image) by the probability of class 0: .9 > .5, .9 > .2, .5 = .5, .5 > .2.
    computed = predictions([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]], [0, 0, 1, 1])
    assert COMPUTE["auroc"](computed) == pytest.approx(3.5 / 4)


def test_auroc_is_the_mean_over_the_classes_that_occur() -> None:
    computed = predictions([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.4, 0.5, 0.1]], [0, 1, 0])
    # Class 0: .5 and .4 are above .3. Class 1: .4 is above .3 and below .5. Class 2 does not occur.
    assert COMPUTE["auroc"](computed) == pytest.approx((1.0 + 0.5) / 2)


def test_a_majority_classifier_on_unbalanced_data() -> None:
    computed = predictions([[0.9, 0.1]] * 10, [0] * 9 + [1])
    values = {name: compute(computed) for name, compute in COMPUTE.items()}
    assert values["accuracy"] == 0.9
    assert values["balanced_accuracy"] == 0.5
    assert values["macro_f1"] == pytest.approx(18 / 19 / 2)
    assert values["auroc"] == 0.5
    assert values["log_loss"] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_only_metrics_that_are_declared_so_are_undefined_with_one_class(metric: Metric) -> None:
    value = COMPUTE[metric.name](predictions([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], [1, 1]))
    assert (value is not None) == metric.single_class


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_direction_is_that_of_a_better_classifier(metric: Metric) -> None:
    labels = np.arange(12) % 3
    good, bad = (
        COMPUTE[metric.name](
            predictions_from_logits(
                torch.eye(3)[torch.from_numpy((labels + shift) % 3)] * 4.0, torch.from_numpy(labels)
            )
        )
        for shift in (0, 1)
    )
    assert good is not None and bad is not None
    assert (good > bad) == metric.higher_is_better


def test_extreme_logits_keep_their_order() -> None:
    logits = torch.tensor([[0.0, -900.0], [0.0, -800.0], [0.0, -850.0], [0.0, -700.0]])
    computed = predictions_from_logits(logits, torch.tensor([0, 1, 0, 1]))
    assert COMPUTE["log_loss"](computed) == pytest.approx(375.0)
    scores = computed.log_probabilities[:, 1]
    assert list(np.argsort(scores)) == [0, 2, 1, 3], "probabilities of class 1 are 0 in double precision"


def test_epochs_store_all_metrics_but_accuracy_and_log_loss() -> None:
    assert {*OTHER_METRICS, "accuracy", "log_loss"} == METRICS.keys() == COMPUTE.keys()


def test_serialisation_changes_no_predicted_class() -> None:
    logits = torch.randn(3000, 200, generator=torch.manual_seed(0))
    labels = torch.arange(3000) % 200
    original = predictions_from_logits(logits, labels, np.arange(5000, 8000))
    restored = Predictions.from_bytes(original.to_bytes())
    np.testing.assert_array_equal(restored.index, np.arange(5000, 8000))
    np.testing.assert_array_equal(restored.labels, original.labels)
    np.testing.assert_array_equal(restored.predicted, original.predicted)
    assert (restored.labels.dtype, restored.index.dtype) == (np.int64, np.int32)
    for name, compute in COMPUTE.items():
        assert compute(restored) == pytest.approx(compute(original), rel=1e-6), name


@pytest.mark.parametrize("content", [b"", b"no file", predictions([[0.9, 0.1]], [0]).to_bytes()[:-30]])
def test_damaged_predictions_are_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="stored predictions are damaged"):
        Predictions.from_bytes(content)
