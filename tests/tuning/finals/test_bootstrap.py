"""Bootstrap intervals: exact values of resamples, coverage, degenerate results and paired differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt.training.evaluation import predictions_from_logits
from nbt.training.metrics import COMPUTE, Predictions
from nbt.tuning.finals import bootstrap
from nbt.tuning.finals.bootstrap import metric_difference, metric_intervals, metric_samples
from nbt.tuning.intervals import wilson_interval
from tests.predictions import fake_predictions


def draw(rng: np.random.Generator, images: int, classes: int, strength: float = 2.0) -> Predictions:
    """Returns predictions of images that are drawn from a population with classes of unequal size and difficulty."""
    sizes = 1.0 / np.arange(1, classes + 1) ** 0.5
    labels = rng.choice(classes, images, p=sizes / sizes.sum())
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += strength * (0.6 + 0.8 * labels / classes)
    return predictions_from_logits(torch.from_numpy(2 * logits), torch.from_numpy(labels), np.arange(images))


def subset(predictions: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(predictions.labels[rows], predictions.log_probabilities[rows], predictions.index[rows])


@pytest.mark.parametrize(("images", "classes"), [(300, 2), (400, 7), (60, 30)])
def test_samples_are_the_metrics_of_the_resamples(images: int, classes: int) -> None:
    predictions = draw(np.random.default_rng(images), images, classes)
    drawn = np.random.default_rng(1).integers(0, images, (20, images), dtype=np.int32)
    samples = bootstrap._evaluate(predictions, bootstrap._LinearisedAuroc(predictions), drawn)
    for name, compute in COMPUTE.items():
        exact = [compute(subset(predictions, rows)) for rows in drawn]
        if name == "auroc":  # linearised: its error is small beside the spread over the resamples
            assert np.abs(samples[name] - exact).max() < 0.6 * np.std(exact)
        else:
            assert samples[name] == pytest.approx(exact, rel=1e-9), name


def test_many_images_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_MAX_ELEMENTS", 7000)
    samples = metric_samples(fake_predictions(0.8, 100))
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys(COMPUTE, bootstrap.RESAMPLES)
    assert np.std(samples["accuracy"]) == pytest.approx(0.04, rel=0.1)


def test_intervals_cover_the_values_of_the_population() -> None:
    rng = np.random.default_rng(3)
    population = draw(rng, 40_000, 8)
    truth = {name: compute(population) for name, compute in COMPUTE.items()}
    repeats, covered = 80, dict.fromkeys(COMPUTE, 0)
    for _ in range(repeats):
        intervals = metric_intervals(subset(population, rng.choice(40_000, 250, replace=False)))
        for name, interval in intervals.items():
            covered[name] += interval.low <= truth[name] <= interval.high
    # With 95 % coverage, fewer than 70 of 80 have a probability below .3 %.
    assert min(covered.values()) >= 70, covered


def test_the_accuracy_has_its_wilson_interval() -> None:
    assert metric_intervals(fake_predictions(0.9, 200))["accuracy"] == wilson_interval(0.9, 200)


def test_a_perfect_result_has_no_interval_without_width() -> None:
    intervals = metric_intervals(fake_predictions(1.0, 50))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert (intervals[name].mean, intervals[name].high) == (1.0, 1.0)
        assert intervals[name].low == pytest.approx(wilson_interval(1.0, 50).low), name


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    one_class = Predictions(np.zeros(20, dtype=np.int64), np.log(np.full((20, 2), 0.5)))
    assert metric_intervals(one_class).keys() == COMPUTE.keys() - {"auroc"}


def test_differences_are_paired_by_image() -> None:
    better = fake_predictions(0.80, 1000)
    worse = fake_predictions(0.78, 1000)
    difference = metric_difference(better, worse, "accuracy")
    assert difference.mean == pytest.approx(0.02)
    assert 0.0 < difference.low < difference.high < 0.04, "unpaired, the half width were 3.5 points"


def test_predictions_that_never_differ_have_an_interval() -> None:
    first, second = fake_predictions(0.8, 100), fake_predictions(0.8, 100)
    difference = metric_difference(first, second, "accuracy")
    assert difference.mean == 0.0
    assert difference.high == pytest.approx(1.96 * np.sqrt(2) / 102, rel=1e-3)
    assert difference.low == -difference.high


def test_different_images_have_no_paired_difference() -> None:
    first, second = fake_predictions(0.8, 100), fake_predictions(0.8, 120)
    assert metric_difference(first, second, "accuracy") is None


def test_intervals_are_reproducible() -> None:
    first, second = (metric_intervals(fake_predictions(0.8, 100)) for _ in range(2))
    assert first == second
