"""Results on the test images: always guessing, classes, confusions and optimism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion_matrix
from sklearn.metrics import precision_recall_fscore_support

from nbt.search_config import SearchConfig
from nbt.training.metrics import Predictions
from nbt.tuning.finals import test_results as results_module
from nbt.tuning.finals.test_results import (
    class_results,
    confusion_matrix,
    guess_majority,
    largest_confusions,
    majority_result,
    optimism,
)
from nbt.tuning.intervals import Interval, wilson_interval
from tests.predictions import fake_predictions
from tests.sample_study import evaluated_study, sample_study, unfinished_study


def predict(labels: list[int], predicted: list[int], classes: int) -> Predictions:
    scores = np.log(np.full((len(labels), classes), 0.1) + 0.8 * np.eye(classes)[predicted])
    return Predictions(np.array(labels), scores, np.arange(len(labels), dtype=np.int32))


class TestMajority:
    def test_it_guesses_the_largest_class_of_the_labelled_images(self) -> None:
        predictions = fake_predictions(0.9, 300, classes=3)
        guessed = guess_majority(predictions, (10, 70, 20))
        assert set(guessed.predicted) == {1}
        np.testing.assert_allclose(np.exp(guessed.log_probabilities[0]), (0.1, 0.7, 0.2))

    def test_values(self) -> None:
        labels = [0] * 10 + [1] * 30 + [2] * 60
        result = majority_result(predict(labels, labels, 3), (100, 500, 400), "accuracy")
        assert result.value == wilson_interval(0.3, 100)
        assert result.metrics["auroc"].mean == 0.5
        balanced = result.metrics["balanced_accuracy"]
        assert (balanced.low, balanced.mean, balanced.high) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
        expected = -(0.1 * math.log(0.1) + 0.3 * math.log(0.5) + 0.6 * math.log(0.4))
        assert result.metrics["log_loss"].mean == pytest.approx(expected)

    def test_a_class_without_labelled_images_has_a_finite_loss(self) -> None:
        result = majority_result(predict([0, 1], [0, 1], 2), (10, 0), "accuracy")
        assert 5.0 < result.metrics["log_loss"].mean < 10.0

    def test_unknown_class_counts_give_no_result(self) -> None:
        assert majority_result(fake_predictions(0.9, 300), (), "accuracy") is None


class TestOptimism:
    def test_bounds_combine_those_of_validation_and_test(self) -> None:
        validation = Interval(mean=0.80, low=0.77, high=0.84, n=5)
        test = Interval(mean=0.78, low=0.74, high=0.81, n=900)
        difference = optimism(validation, test)
        assert difference.mean == pytest.approx(0.02)
        assert difference.low == pytest.approx(0.02 - math.hypot(0.03, 0.03))
        assert difference.high == pytest.approx(0.02 + math.hypot(0.04, 0.04))

    def test_one_run_gives_no_bounds(self) -> None:
        one = Interval(mean=0.8, low=None, high=None, n=1)
        assert optimism(one, wilson_interval(0.7, 100)) == Interval(mean=pytest.approx(0.1), low=None, high=None, n=100)
        assert optimism(one, None) is None


class TestClasses:
    def test_values_equal_those_of_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        labels, predicted = rng.integers(0, 6, 200).tolist(), rng.integers(0, 6, 200).tolist()
        rows = class_results(predict(labels, predicted, 6), "abcdef", range(10, 16))
        precision, recall, f1, images = precision_recall_fscore_support(labels, predicted)
        for row in rows:
            values = (row.precision, row.recall, row.f1, row.images)
            assert values == pytest.approx(tuple(v[row.label] for v in (precision, recall, f1, images)))
            assert (row.name, row.labelled) == ("abcdef"[row.label], 10 + row.label)
        assert [row.recall for row in rows] == sorted(recall)

    def test_undefined_values_are_missing_and_classes_without_images_come_last(self) -> None:
        rows = class_results(predict([0, 0, 2], [0, 0, 0], 4))
        assert [(row.name, row.images, row.predicted) for row in rows] == [
            ("2", 1, 0),
            ("0", 2, 3),
            ("1", 0, 0),
            ("3", 0, 0),
        ]
        assert [(row.recall, row.precision, row.f1) for row in rows] == [
            (0.0, None, 0.0),
            (1.0, pytest.approx(2 / 3), pytest.approx(0.8)),
            (None, None, None),
            (None, None, None),
        ]
        assert {row.labelled for row in rows} == {None}

    def test_confusion_matrix(self) -> None:
        rng = np.random.default_rng(1)
        labels, predicted = rng.integers(0, 5, 100).tolist(), rng.integers(0, 5, 100).tolist()
        expected = reference_confusion_matrix(labels, predicted, labels=range(5))
        np.testing.assert_array_equal(confusion_matrix(predict(labels, predicted, 5)), expected)

    def test_largest_confusions(self) -> None:
        matrix = np.array([[50, 2, 0], [7, 20, 1], [0, 0, 9]])
        assert largest_confusions(matrix, 2) == [(1, 0, 7), (0, 1, 2)]
        assert largest_confusions(matrix, 99) == [(1, 0, 7), (0, 1, 2), (1, 2, 1)]


class TestStudy:
    def test_a_study_with_predictions(self) -> None:
        results = results_module.test_results(evaluated_study())
        assert results.recommended.value == wilson_interval(round(0.695 * 1174) / 1174, 1174)
        assert results.baseline.value.mean == pytest.approx(0.651, abs=0.001)
        assert results.difference.mean == pytest.approx(0.044, abs=0.001)
        assert results.difference.low > 0
        assert results.majority.value.mean == pytest.approx(1 / 50, abs=0.001)
        assert results.optimism.mean == pytest.approx(0.706 - 0.695, abs=0.001)

    def test_a_study_without_predictions_has_its_stored_values(self) -> None:
        study = sample_study()
        results = results_module.test_results(study)
        assert results.recommended.value == study.test[0].accuracy
        assert results.recommended.metrics["log_loss"].mean == study.test[0].loss
        assert (results.majority, results.difference) == (None, None)
        assert results.optimism.low < results.optimism.mean < results.optimism.high

    def test_the_default_recipe_has_no_difference_from_itself(self) -> None:
        results = results_module.test_results(evaluated_study(recommended="default recipe"))
        assert results.difference is None
        assert results.recommended.value == results.baseline.value

    def test_without_a_test_there_is_no_result(self) -> None:
        assert results_module.test_results(unfinished_study()) is None


class TestWithoutCopies:
    def test_the_metric_without_copied_images_is_that_of_the_others(self) -> None:
        study = evaluated_study()
        copied = evaluated_study(dataset={**study.dataset, "copied_test_images": list(range(100))})
        results = results_module.test_results(copied)
        # The first 816 of the 1174 predictions are right, the copies among them.
        assert results.recommended.value == wilson_interval(816 / 1174, 1174)
        assert results.recommended.without_copies.value == wilson_interval(716 / 1074, 1074)
        assert results.baseline.without_copies.n == 1074
        assert results_module.test_results(study).recommended.without_copies is None

    def test_a_study_that_ignores_the_check_has_no_such_result(self) -> None:
        study = evaluated_study()
        facts = {**study.dataset, "copied_test_images": [0, 1]}
        ignored = evaluated_study(dataset=facts, search=SearchConfig(dataset="cub", ignore="NBT102"))
        assert results_module.test_results(ignored).recommended.without_copies is None

    def test_all_images_are_copies(self) -> None:
        study = evaluated_study(images=50, dataset={**sample_study().dataset, "copied_test_images": list(range(50))})
        rest = results_module.test_results(study).recommended.without_copies
        assert (rest.value, rest.n, dict(rest.metrics)) == (None, 0, {})
