from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from nbt.tuning.intervals import (
    ValidationDesign,
    accuracy_bounds,
    accuracy_interval,
    accuracy_standard_error,
    difference_bounds,
    image_variances,
    mean_variance,
    paired_interval,
    repeated_accuracy_interval,
    repeated_difference_interval,
    t_interval,
    wilson_interval,
)


def test_t_interval_equals_that_of_scipy() -> None:
    values = [0.81, 0.84, 0.79, 0.9]
    interval = t_interval(values)
    low, high = scipy_stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy_stats.sem(values))
    assert (interval.low, interval.high, interval.n) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_value_has_no_interval() -> None:
    interval = t_interval([0.5])
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.5, None, None, 1)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


def test_t_interval_has_the_nominal_coverage() -> None:
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        interval = t_interval([rng.gauss(0.3, 1) for _ in range(3)])
        covered += interval.low <= 0.3 <= interval.high
    assert 0.93 < covered / 2000 < 0.97


def test_pairing_removes_the_variance_that_pairs_share() -> None:
    difference = paired_interval([0.9, 0.6, 0.3], [0.8, 0.5, 0.21])
    assert difference.mean == pytest.approx(0.29 / 3)
    assert difference.low > 0
    with pytest.raises(ValueError):
        paired_interval([0.1], [0.1, 0.2])


@given(st.integers(1, 2000), st.data())
def test_wilson_interval_equals_that_of_scipy_and_lies_in_0_1(n: int, data: st.DataObject) -> None:
    n_correct = data.draw(st.integers(0, n))
    interval = wilson_interval(n_correct / n, n)
    expected = scipy_stats.binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)
    assert 0 <= interval.low <= interval.high <= 1


def test_wilson_interval_of_no_images() -> None:
    assert wilson_interval(0.5, 0).low is None


def test_accuracy_standard_error() -> None:
    assert accuracy_standard_error(0.5, 400) == pytest.approx(0.025, rel=0.01)
    assert accuracy_standard_error(0.8, 10_000) == pytest.approx(math.sqrt(0.16 / 10_000), rel=0.01)
    assert 0.005 < accuracy_standard_error(1.0, 200) < 0.01


def test_an_interval_of_accuracies_is_clipped() -> None:
    wide = accuracy_interval([0.2, 0.45])
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert accuracy_interval([0.5, 0.51, 0.52]) == t_interval([0.5, 0.51, 0.52])
    assert accuracy_interval([0.5]).low is None


ACCURACIES = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=1, max_size=6)


class TestRepeatedRuns:
    @given(ACCURACIES, st.integers(5, 400), st.booleans())
    def test_never_narrower_than_the_binomial_interval_of_all_images(
        self, accuracies: list[float], images: int, fixed: bool
    ) -> None:
        interval = repeated_accuracy_interval(
            accuracies, ValidationDesign(images=images, train_images=4 * images, fixed=fixed)
        )
        distinct = images if fixed else images * len(accuracies)
        binomial = wilson_interval(sum(accuracies) / len(accuracies), distinct)
        assert 0 <= interval.low <= interval.mean + 1e-9 and interval.mean - 1e-9 <= interval.high <= 1
        assert interval.high - interval.low >= binomial.high - binomial.low - 1e-9

    def test_equal_differences_are_not_certain(self) -> None:
        design = ValidationDesign(images=40, train_images=120)
        interval = repeated_difference_interval([0.8, 0.85, 0.9], [0.775, 0.825, 0.875], design)
        assert interval.mean == pytest.approx(0.025)
        assert interval.low < -0.05 and interval.high > 0.1

    def test_one_run_shows_no_difference(self) -> None:
        interval = repeated_difference_interval([0.9], [0.5], ValidationDesign(images=40, train_images=120))
        assert (interval.mean, interval.low, interval.high, interval.n) == (pytest.approx(0.4), None, None, 1)

    @pytest.mark.parametrize("function", [repeated_accuracy_interval, repeated_difference_interval])
    def test_runs_are_needed(self, function) -> None:
        arguments = ([],) if function is repeated_accuracy_interval else ([], [])
        with pytest.raises(ValueError, match="no accuracies"):
            function(*arguments, ValidationDesign(images=40, train_images=120))

    def test_more_comparisons_give_wider_differences(self) -> None:
        widths = []
        for comparisons in (1, 3, 9):
            design = ValidationDesign(images=100, train_images=400, comparisons=comparisons)
            interval = repeated_difference_interval([0.8, 0.82, 0.84], [0.7, 0.74, 0.73], design)
            widths.append(interval.high - interval.low)
        assert widths == sorted(widths) and widths[2] > 1.3 * widths[0]

    def test_new_splits_have_the_factor_of_nadeau_and_bengio(self) -> None:
        values, image_variance = np.array([0.6, 0.7, 0.8]), np.array(0.2)
        design = ValidationDesign(images=100, train_images=300)
        variance, degrees = mean_variance(values, image_variance, design)
        binomial, expected = 0.2 / 100, 0.2 * 0.041**2
        prior_degrees = 2.5 * ((binomial + expected) / expected) ** 2  # only the training noise is uncertain
        assert float(degrees) == pytest.approx(prior_degrees + 2)
        of_a_run = (prior_degrees * (binomial + expected) + 2 * 0.01) / (prior_degrees + 2)
        assert float(variance) == pytest.approx((1 / 3 + 1 / 3) * of_a_run)

    def test_many_images_show_the_training_noise_by_its_few_degrees_of_freedom(self) -> None:
        degrees = []
        for images in (20, 400, 10**6):
            design = ValidationDesign(images=images, train_images=4 * images)
            degrees.append(float(mean_variance(np.array([0.6, 0.7, 0.8]), np.array(0.2), design)[1]))
        assert degrees[0] > 1000 > 20 > degrees[1] > degrees[2]
        assert degrees[2] == pytest.approx(2.5 + 2, rel=0.01)

    def test_the_draw_of_fixed_images_is_known_and_adds_no_uncertainty(self) -> None:
        design = ValidationDesign(images=10**6, train_images=10**6, fixed=True)
        values, images = np.array([0.6, 0.7, 0.8]), (np.array(0.1), np.array(0.1))
        variance, degrees = mean_variance(values, np.array(0.2), design, images)
        between = (2.5 * 0.2 * 0.041**2 + 2 * 0.01) / 4.5
        assert float(variance) == pytest.approx(between / 3, rel=1e-3)
        assert float(degrees) == pytest.approx(4.5, rel=0.01)
        few = ValidationDesign(images=20, train_images=10**6, fixed=True)
        assert float(mean_variance(values, np.array(0.2), few, images)[1]) > 100

    def test_fixed_images_are_not_averaged_out_by_more_runs(self) -> None:
        design = ValidationDesign(images=50, train_images=200, fixed=True)
        interval = repeated_accuracy_interval([0.8] * 200, design)
        wilson = wilson_interval(0.8, 50)
        assert (interval.low, interval.high) == (
            pytest.approx(wilson.low, abs=0.01),
            pytest.approx(wilson.high, abs=0.01),
        )

    def test_the_correctness_per_image_shows_what_fixed_images_share(self) -> None:
        rng = np.random.default_rng(0)
        design = ValidationDesign(images=200, train_images=800, fixed=True)
        independent = rng.random((5, 200)) < 0.7
        accuracies = independent.mean(1).tolist()
        known = repeated_accuracy_interval(accuracies, design, list(independent))
        unknown = repeated_accuracy_interval(accuracies, design)
        assert known.high - known.low < 0.7 * (unknown.high - unknown.low)

    def test_recipes_that_agree_on_most_images_are_told_apart(self) -> None:
        design = ValidationDesign(images=100, train_images=400)
        rng = np.random.default_rng(0)
        reference = [rng.random(100) < 0.8 for _ in range(3)]
        better = [correct | (np.arange(100) < 15) for correct in reference]
        differences = [a.astype(int) - b for a, b in zip(better, reference, strict=True)]
        accuracies, references = ([float(run.mean()) for run in runs] for runs in (better, reference))
        known = repeated_difference_interval(accuracies, references, design, differences)
        unknown = repeated_difference_interval(accuracies, references, design)
        assert known.mean == unknown.mean
        assert known.high - known.low < unknown.high - unknown.low

    def test_image_variances(self) -> None:
        between, within = image_variances(np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]]))
        # The variance within images, .25, explains that of their means, .125. With an added image, the correlation is
        # .5 / (1 + 4 * .25); 8 outcomes count as 6.4, and one of each kind is added.
        assert float(between + within) == pytest.approx((3.2 + 1) / 8.4 - 0.5**2)
        assert float(between / (between + within)) == pytest.approx(0.25)

    def test_equal_outcomes_of_many_images_have_the_correlation_1(self) -> None:
        run = np.arange(1000) < 700
        between, within = image_variances(np.array([run, run, run], dtype=float))
        assert float(between) == pytest.approx(0.21, abs=0.002)
        assert float(within) < 0.001
        unequal = image_variances((np.random.default_rng(0).random((3, 1000)) < 0.7).astype(float))
        assert float(unequal[0]) < 0.02

    def test_perfect_results_have_a_variance(self) -> None:
        between, within = image_variances(np.ones((3, 20)))
        # The correlation is .5, so that 60 outcomes count as 30.
        assert float(between + within) == pytest.approx(31 / 32 * 1 / 32)

    @pytest.mark.parametrize("fixed", [False, True])
    def test_coverage_and_false_differences(self, fixed: bool) -> None:
        rng = np.random.default_rng(0)
        images, accuracy, runs = 100, 0.8, 1 if fixed else 3
        # Two recipes are equally good and agree on half of the images; the luck is that of overlapping training sets.
        threshold = accuracy + rng.normal(0, 0 if fixed else 0.02, (2000, 1, 1))
        common, own = rng.random((2000, runs, images)), rng.random((2, 2000, runs, images))
        is_common = rng.random((2000, runs, images)) < 0.5
        correct = (np.where(is_common, common, own) < threshold).mean(-1).repeat(3 // runs, axis=-1)
        design = ValidationDesign(images=images, train_images=400, fixed=fixed)
        low, high = accuracy_bounds(correct[0], design)
        assert np.mean((low <= accuracy) & (accuracy <= high)) >= 0.93
        low, high = difference_bounds(correct[0], correct[1], design)
        assert np.mean((low > 0) | (high < 0)) <= 0.07
