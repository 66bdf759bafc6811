from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.study.checks.trivial_model import TrivialModel
from nbt.training.metrics import Predictions
from tests.report.study.checks.studies import run, with_curves
from tests.sample_study import config, curve

CHECK = TrivialModel()


def by_test(labels: Sequence[int], predicted: Sequence[int], classes: int = 3) -> CheckResult:
    scores = np.full((len(labels), classes), -5.0)
    scores[np.arange(len(labels)), predicted] = -0.02
    predictions = Predictions(np.array(labels), scores)
    return run(CHECK, load_predictions=lambda _: predictions)


def test_one_predicted_class_of_the_test_images_fails() -> None:
    result = by_test([0] * 90 + [1] * 10, [0] * 100)
    assert (result.state, result.severity) == (FAILED, "error")
    assert "On 100 test images the accuracy is 90.0 %" in result.message
    assert "predicts one class only" in result.message
    assert by_test([0] * 90 + [1] * 10, [1] * 100).state == FAILED


def test_the_advice_does_not_repeat_the_metric_of_the_search() -> None:
    labels, predicted = [0] * 90 + [1] * 10, [0] * 100
    scores = np.full((100, 2), -5.0)
    scores[np.arange(100), predicted] = -0.02
    predictions = Predictions(np.array(labels), scores)
    advice = {
        metric: run(CHECK, config=config(metric=metric), load_predictions=lambda _: predictions).advice
        for metric in ("accuracy", "macro_f1")
    }
    assert advice["accuracy"].endswith("search with --metric balanced_accuracy if the classes differ in size.")
    assert advice["macro_f1"].endswith("add images of the rare classes.")


def test_a_model_that_is_not_above_guessing_fails() -> None:
    # Two images more than always guessing; the noise of that difference is 2.7 points.
    result = by_test([0] * 90 + [1] * 10, [0] * 98 + [1] * 2)
    assert result.state == FAILED
    assert "92.0 %" in result.message
    assert "90.0 %" in result.message
    assert "beyond noise" in result.message


def test_a_model_that_finds_both_classes_of_imbalanced_images_passes() -> None:
    """With 90 % of the images in one class, a recall of 90 % of both classes has the accuracy of always guessing."""
    assert by_test([0] * 90 + [1] * 10, [0] * 81 + [1] * 9 + [1] * 9 + [0]).state == PASSED


def test_two_images_do_not_judge_a_model() -> None:
    result = by_test([0, 1], [0, 1])
    assert result.state == NOT_APPLICABLE
    assert "even a perfect model" in result.message


def test_a_model_above_guessing_passes() -> None:
    assert by_test([0] * 90 + [1] * 10, [0] * 91 + [1] * 9).state == PASSED
    assert by_test([0, 1, 2] * 30, [0, 1, 2] * 30).state == PASSED


def result_of(*balanced: float | None) -> CheckResult:
    ends = [(*curve(0.7)[:-1], replace(curve(0.7)[-1], metrics={"balanced_accuracy": value})) for value in balanced]
    return run(CHECK, finals=(with_curves(ends),))


def test_a_model_above_chance_passes() -> None:
    result = result_of(0.6, 0.62)
    assert result.state == PASSED
    assert "61.0 %" in result.message
    assert "2.0 %" in result.message


def test_one_predicted_class_fails() -> None:
    result = result_of(1 / 50, 1 / 50)
    assert (result.state, result.severity) == (FAILED, "error")
    assert "predicts one class only" in result.message


def test_a_model_within_noise_of_chance_fails() -> None:
    # 1.96 standard errors of 2 % over 299 images are 1.59 points.
    assert result_of(0.035).state == FAILED
    assert result_of(0.037).state == PASSED


def test_without_metrics_it_is_not_applicable() -> None:
    assert run(CHECK).state == NOT_APPLICABLE, "studies of version 0.1 store no metrics"
    assert result_of(None).state == NOT_APPLICABLE
    assert run(CHECK, finals=(), recommended=None).state == NOT_APPLICABLE
