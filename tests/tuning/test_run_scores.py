from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nbt.training.metrics import Predictions, accuracy, log_loss
from nbt.tuning.intervals import (
    ValidationDesign,
    paired_interval,
    repeated_accuracy_interval,
    repeated_difference_interval,
    t_interval,
)
from nbt.tuning.run_scores import (
    ImageScores,
    RunScore,
    image_scores,
    paired_difference,
    score_difference,
    score_interval,
)
from tests.predictions import fake_predictions

FOLDS = ValidationDesign(images=40, train_images=120)
FIXED = replace(FOLDS, fixed=True)


def runs(*n_correct: int, moved: int = 0, fixed: bool = False) -> list[RunScore]:
    """Returns one run of 40 images per number of correct ones, `moved` of which are other images."""
    scores = []
    for run, number in enumerate(n_correct):
        correct = np.roll(np.arange(40) < number, moved).astype(float)
        index = np.arange(40, dtype=np.int32) + (0 if fixed else 40 * run)
        scores.append(RunScore(number / 40, images=ImageScores(index, correct)))
    return scores


def without_images(scores: list[RunScore]) -> list[RunScore]:
    return [replace(score, images=None) for score in scores]


class TestImageScores:
    def test_the_accuracy_is_the_mean_of_the_correctness(self) -> None:
        predictions = fake_predictions(0.7, 100)
        scores = image_scores(predictions, "accuracy")
        assert set(scores.values) == {0.0, 1.0} and scores.values.mean() == accuracy(predictions) == 0.7
        assert (scores.index == predictions.index).all()

    def test_the_log_loss_has_the_values_and_the_error_of_its_score(self) -> None:
        predictions = fake_predictions(0.7, 2000)
        scores = image_scores(predictions, "log_loss").values
        assert scores.mean() == pytest.approx(math.exp(-log_loss(predictions)))
        losses = -predictions.log_probabilities[np.arange(2000), predictions.labels]
        drawn = losses[np.random.default_rng(0).integers(0, 2000, (2000, 2000))].mean(axis=1)
        assert scores.std() / math.sqrt(2000) == pytest.approx(np.exp(-drawn).std(), rel=0.05)

    @pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "auroc"])
    def test_means_over_classes_have_none(self, metric: str) -> None:
        assert image_scores(fake_predictions(0.7, 100), metric) is None

    def test_unknown_images_have_none(self) -> None:
        predictions = fake_predictions(0.7, 100)
        assert image_scores(None, "accuracy") is None
        assert image_scores(Predictions(predictions.labels, predictions.log_probabilities), "accuracy") is None


class TestDifference:
    def test_folds_count_the_images_on_which_the_recipes_disagree(self) -> None:
        """Recipes that disagree on 3 + 3 + 3 of 120 images; the variance follows from the definition."""
        better, reference = runs(33, 35, 37), runs(30, 32, 34)
        interval = score_difference(better, reference, FOLDS)
        image_variance = (9 + 1) / 122 - (9 / 122) ** 2
        binomial, expected = image_variance / 40, image_variance * 0.041**2
        degrees = 2.5 * ((binomial + expected) / expected) ** 2
        variance = (1 / 3 + 40 / 120) * max(binomial, degrees / (degrees + 2) * (binomial + expected))
        half_width = stats.t.ppf(0.975, degrees + 2) * math.sqrt(variance)
        assert interval.mean == pytest.approx(0.075)
        assert (interval.low, interval.high) == (
            pytest.approx(0.075 - half_width, abs=1e-9),
            pytest.approx(0.075 + half_width, abs=1e-9),
        )
        unknown = score_difference(without_images(better), without_images(reference), FOLDS)
        assert unknown == repeated_difference_interval([s.value for s in better], [s.value for s in reference], FOLDS)
        assert interval.high - interval.low < 0.75 * (unknown.high - unknown.low)

    def test_recipes_that_are_right_on_other_images_have_a_wide_interval(self) -> None:
        """The means differ by three images, but each recipe alone is right on many more."""
        nested = score_difference(runs(33, 33, 33), runs(30, 30, 30), FOLDS)
        moved = score_difference(runs(33, 33, 33, moved=7), runs(30, 30, 30), FOLDS)
        assert moved.mean == nested.mean
        assert moved.high - moved.low > 1.5 * (nested.high - nested.low)

    def test_one_run_without_predictions_leaves_the_rule_without_images(self) -> None:
        better, reference = runs(33, 35, 37), runs(30, 32, 34)
        expected = score_difference(without_images(better), without_images(reference), FOLDS)
        assert score_difference([*better[:2], *without_images(better[2:])], reference, FOLDS) == expected
        assert score_difference(better, [*without_images(reference[:1]), *reference[1:]], FOLDS) == expected

    def test_other_images_are_not_compared_image_by_image(self) -> None:
        better, reference = runs(33, 35, 37), runs(30, 32, 34)
        expected = score_difference(without_images(better), without_images(reference), FOLDS)
        assert score_difference(better, [reference[1], reference[0], reference[2]], FOLDS) != expected  # of their means
        other = [replace(s, images=ImageScores(s.images.index + 1, s.images.values)) for s in reference]
        assert score_difference(better, other, FOLDS) == expected

    def test_fixed_images_must_be_the_same_in_all_runs(self) -> None:
        better, reference = runs(33, 35, 37, fixed=True), runs(30, 32, 34, fixed=True)
        unknown = score_difference(without_images(better), without_images(reference), FIXED)
        assert score_difference(better, reference, FIXED) != unknown
        assert score_difference(runs(33, 35, 37), runs(30, 32, 34), FIXED) == unknown

    def test_runs_are_paired_by_their_seeds(self) -> None:
        better, reference = runs(33, 35, 37), runs(30, 32, 34)
        paired = paired_difference(dict(enumerate(better)), {2: reference[2], 1: reference[1], 9: reference[0]}, FOLDS)
        assert paired == score_difference(better[1:], reference[1:], FOLDS)
        assert paired_difference({1: better[0]}, {2: reference[0]}, FOLDS) is None

    def test_without_a_design_it_is_the_interval_of_student(self) -> None:
        assert score_difference(runs(33, 35, 37), runs(30, 33, 34), None) == paired_interval(
            [33 / 40, 35 / 40, 37 / 40], [30 / 40, 33 / 40, 34 / 40]
        )


class TestMean:
    def test_folds_have_the_binomial_variance_of_their_images(self) -> None:
        known = score_interval(runs(30, 32, 34), FOLDS)
        unknown = repeated_accuracy_interval([30 / 40, 32 / 40, 34 / 40], FOLDS)
        assert (known.low, known.high) == (pytest.approx(unknown.low), pytest.approx(unknown.high))

    def test_fixed_images_that_all_runs_classify_alike_are_not_averaged_out(self) -> None:
        alike = score_interval(runs(32, 32, 32, fixed=True), FIXED)
        mixed = [
            replace(score, images=ImageScores(score.images.index, np.roll(score.images.values, 13 * i)))
            for i, score in enumerate(runs(32, 32, 32, fixed=True))
        ]
        assert score_interval(mixed, FIXED).low > alike.low + 0.02

    def test_a_log_loss_with_rare_large_losses_has_a_wider_interval_than_the_binomial_one(self) -> None:
        losses = np.where(np.arange(400) % 10 == 0, 4.0, 0.05)
        score = math.exp(-losses.mean())
        values = score * (1 + losses.mean() - losses)
        scores = [RunScore(score, images=ImageScores(np.arange(400) + 400 * i, values)) for i in range(3)]
        design = ValidationDesign(images=400, train_images=1600)
        known, unknown = score_interval(scores, design), score_interval(without_images(scores), design)
        assert known.high - known.low > 1.3 * (unknown.high - unknown.low)

    def test_without_a_design_it_is_the_interval_of_student(self) -> None:
        assert score_interval(runs(30, 32, 34), None) == t_interval([30 / 40, 32 / 40, 34 / 40])
