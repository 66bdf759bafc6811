from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.tuning.benchmark.ground_truth import denoise_accuracies, estimate_ground_truth, image_noise, run_noise
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark
from nbt.tuning.experience.recorded_table import RecordedRun
from nbt.tuning.space.encoding import encode
from tests.tuning.benchmark.tables import LENGTH, SPACE, make_curve, make_table, true_accuracy


def test_the_test_accuracy_is_the_mean_over_seeds() -> None:
    benchmark = TabularBenchmark(make_table(12), SPACE)
    truth = estimate_ground_truth(benchmark)
    runs = benchmark.settings[0].runs
    assert truth.test[0] == pytest.approx(sum(run.test_accuracy or 0 for run in runs) / 2)
    assert truth.test[0] != runs[0].test_accuracy


def test_run_noise_is_estimated_from_pairs() -> None:
    truth = estimate_ground_truth(TabularBenchmark(make_table(400, noise=0.02), SPACE))
    assert truth.pairs >= 10
    assert truth.run_noise == pytest.approx(0.02, rel=0.5)


class TestImageNoise:
    """Noise of a setting's accuracy due to the images of a split, equal in all its runs."""

    def table_with_noise(self, test: float, validation: float, shared: float = 0.0, **changes: Any) -> TabularBenchmark:
        """Returns a table of equally good settings with image noise of given standard deviations on each split."""

        def change(run: RecordedRun) -> RecordedRun:
            rng = np.random.default_rng([run.setting, 77])
            split, other = 0.7 + test * rng.standard_normal(), 0.7 + validation * rng.standard_normal()
            run_noise_value = shared * np.random.default_rng([run.setting, run.seed, 78]).standard_normal()
            return dataclasses.replace(run, curve=make_curve(other + run_noise_value, split + run_noise_value))

        return TabularBenchmark(make_table(400, change=change, **changes), SPACE)

    def test_it_is_estimated_from_the_two_splits(self) -> None:
        facts = {"validation_images": 100}
        benchmark = self.table_with_noise(0.01, 0.02, facts=facts, watched=400)
        test = np.asarray([setting.runs[0].test_accuracy for setting in benchmark.settings])
        assert image_noise(test, benchmark) == pytest.approx(0.01, rel=0.2)

    def test_it_is_not_in_the_run_noise(self) -> None:
        truth = estimate_ground_truth(self.table_with_noise(0.02, 0.02, facts={"validation_images": 400}))
        assert truth.run_noise == pytest.approx(0.0, abs=1e-12)
        assert truth.image_noise == pytest.approx(0.02, rel=0.2)

    def test_run_noise_is_not_image_noise(self) -> None:
        truth = estimate_ground_truth(self.table_with_noise(0.01, 0.01, shared=0.03, facts={"validation_images": 400}))
        assert truth.image_noise == pytest.approx(0.01, rel=0.25)
        assert truth.run_noise == pytest.approx(0.03, rel=0.4)

    def test_a_larger_split_has_less_noise(self) -> None:
        many, few = (self.table_with_noise(0.02, 0.02, watched=watched) for watched in (4000, 40))
        test = np.asarray([setting.runs[0].test_accuracy for setting in many.settings])
        assert image_noise(test, many) < 0.3 * image_noise(test, few)

    def test_the_difficulty_of_a_split_is_no_noise(self) -> None:
        def change(run: RecordedRun) -> RecordedRun:
            value = true_accuracy(run.settings)
            return dataclasses.replace(run, curve=make_curve(value, value - 0.05))

        assert estimate_ground_truth(
            TabularBenchmark(make_table(40, change=change), SPACE)
        ).image_noise == pytest.approx(0.0, abs=1e-9)

    def test_poor_settings_do_not_count(self) -> None:
        def change(run: RecordedRun) -> RecordedRun:
            value = true_accuracy(run.settings)
            worse = run.setting % 2 == 0
            return dataclasses.replace(run, curve=make_curve(0.1 * value if worse else value, 0.3 if worse else value))

        assert estimate_ground_truth(TabularBenchmark(make_table(60, change=change), SPACE)).image_noise < 0.05


def test_poor_settings_do_not_count_as_run_noise() -> None:
    pairs = [np.asarray([0.9, 0.92])] * 3 + [np.asarray([0.1, 0.5])]
    assert run_noise(pairs, 0.8) == (pytest.approx(0.02 / 2**0.5), 3)
    assert run_noise(pairs[2:], 0.8)[1] == 2, "with too few good pairs all of them count"
    assert run_noise([np.asarray([0.5])], 0.0) == (None, 0)


def test_denoising_removes_the_bias_of_the_maximum() -> None:
    errors = []
    for seed in range(8):
        benchmark = TabularBenchmark(make_table(150, seed=seed, noise=0.04), SPACE)
        real = np.asarray([true_accuracy(setting.settings) for setting in benchmark.settings])
        test = estimate_ground_truth(benchmark).test
        counts = np.asarray([len(setting.runs) for setting in benchmark.settings], dtype=float)
        smoothed = denoise_accuracies(
            test, 0.04**2 / counts, encode([setting.settings for setting in benchmark.settings])
        )
        errors.append([values.max() - real[values.argmax()] for values in (test, smoothed)])
    raw_error, smoothed_error = np.mean(errors, axis=0)
    assert raw_error > 0.03
    assert abs(smoothed_error) < 0.5 * raw_error


def test_denoising_reduces_the_error() -> None:
    benchmark = TabularBenchmark(make_table(150, noise=0.04), SPACE)
    real = np.asarray([true_accuracy(setting.settings) for setting in benchmark.settings])
    truth = estimate_ground_truth(benchmark)
    upper = truth.test >= np.median(truth.test)
    before, after = (np.square(values - real)[upper].mean() for values in (truth.test, truth.smoothed))
    assert after < 0.9 * before
    assert truth.best == truth.smoothed.max() and truth.median == np.median(truth.smoothed)


def test_without_noise_accuracies_are_unchanged() -> None:
    benchmark = TabularBenchmark(make_table(30, noise=0.0), SPACE)
    truth = estimate_ground_truth(benchmark)
    assert truth.smoothed == pytest.approx(truth.test, abs=1e-6)
    assert truth.best == pytest.approx(max(true_accuracy(setting.settings) for setting in benchmark.settings), abs=1e-6)


def accuracies_with_outlier(seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Returns points and unrelated accuracies, the first of which is far above the others."""
    rng = np.random.default_rng(seed)
    points, test = rng.random((40, 3)), 0.5 + rng.random(40) * 0.1
    test[0] = 0.8
    return points, test


def test_a_smaller_variance_is_denoised_less() -> None:
    points, test = accuracies_with_outlier()
    variance, smaller = np.full(40, 0.03**2), np.full(40, 0.03**2)
    smaller[0] /= 4
    assert denoise_accuracies(test, variance, points)[0] < denoise_accuracies(test, smaller, points)[0] < 0.8


def test_more_noise_is_denoised_more() -> None:
    points, test = accuracies_with_outlier()
    denoised = [denoise_accuracies(test, np.full(40, noise**2), points)[0] for noise in (0.0, 0.01, 0.05, 0.2)]
    assert denoised[0] == 0.8 and denoised == sorted(denoised, reverse=True) and denoised[-1] < 0.75


def test_deviations_beyond_the_known_noise_count_as_real() -> None:
    points, test = accuracies_with_outlier()
    assert denoise_accuracies(test, np.full(40, 0.005**2), points)[0] == pytest.approx(0.8, abs=0.01)


def test_failed_settings_do_not_affect_good_ones() -> None:
    points, test = accuracies_with_outlier()
    broken = test.copy()
    broken[np.argsort(test)[:10]] = 0.0
    variance = np.full(40, 0.02**2)
    denoised = denoise_accuracies(broken, variance, points)
    assert denoised.max() == pytest.approx(denoise_accuracies(test, variance, points).max())
    assert (denoised[broken < np.median(broken)] == broken[broken < np.median(broken)]).all(), (
        "the lower half is unchanged"
    )


@pytest.mark.parametrize("n", [1, 7])
def test_few_settings_are_unchanged(n: int) -> None:
    test = np.linspace(0.1, 0.9, n)
    assert list(denoise_accuracies(test, np.full(n, 0.01), np.zeros((n, 2)))) == list(test)


def test_equal_accuracies_are_unchanged() -> None:
    denoised = denoise_accuracies(np.full(20, 0.6), np.full(20, 0.01), np.random.default_rng(0).random((20, 2)))
    assert denoised == pytest.approx(np.full(20, 0.6), abs=1e-9)


def test_tables_without_test_accuracies_are_rejected() -> None:
    with pytest.raises(UsageError, match="without test accuracies"):
        estimate_ground_truth(TabularBenchmark(make_table(4, watched=0), SPACE))
    unwatched = make_table(
        4,
        change=lambda run: dataclasses.replace(
            run, curve=tuple(dataclasses.replace(result, watched_accuracy=None) for result in run.curve)
        ),
    )
    with pytest.raises(UsageError, match="without test accuracies"):
        estimate_ground_truth(TabularBenchmark(unwatched, SPACE))


def test_settings_that_differ_in_length_alone_are_not_smoothed_together() -> None:
    long = make_table(40, noise=0.03)
    short = [
        dataclasses.replace(
            run,
            setting=run.setting + 100,
            settings=run.settings.replace(epochs=LENGTH // 2),
            curve=make_curve(run.val_accuracy - 0.2, (run.test_accuracy or 0.0) - 0.2, LENGTH // 2),
        )
        for run in long.runs
    ]
    benchmark = TabularBenchmark(dataclasses.replace(long, runs=[*long.runs, *short]), SPACE)
    smoothed = estimate_ground_truth(benchmark).smoothed
    is_long = np.array([setting.settings.epochs == LENGTH for setting in benchmark.settings])
    best = [np.sort(smoothed[mask])[-8:].mean() for mask in (is_long, ~is_long)]
    assert best[0] - best[1] == pytest.approx(0.2, abs=0.05)
