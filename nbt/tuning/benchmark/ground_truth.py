"""Reference accuracies of the recorded settings on test images that no search method sees, and their noise."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from nbt.errors import UsageError
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark
from nbt.tuning.space.encoding import encode, encode_with_length
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel
from nbt.tuning.surrogate.kernel import default_kernel

_MIN_SETTINGS = 8


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Reference accuracies of a benchmark's settings, as shares 0 ... 1.

    Attributes:
        test: Test accuracy after the last epoch, mean over the setting's runs, (settings,).
        smoothed: Denoised test accuracy, see `denoise_accuracies`, (settings,).
        best: Maximum of `smoothed`, from which regret is measured. The true maximum, which a noisy table cannot show,
            is slightly higher.
        median: Median of `smoothed`.
        run_noise: Standard deviation of a run's accuracy over seeds, from pairs of runs; None without pairs.
        pairs: Number of pairs behind `run_noise`.
        image_noise: Standard deviation of a setting's accuracy due to the draw of the test images.
    """

    test: FloatArray
    smoothed: FloatArray
    best: float
    median: float
    run_noise: float | None
    pairs: int
    image_noise: float


def estimate_ground_truth(benchmark: TabularBenchmark) -> GroundTruth:
    """Estimates the reference accuracies of a task's settings.

    Raises:
        UsageError: The table has no test accuracies.
    """
    runs = [[run.test_accuracy for run in setting.runs] for setting in benchmark.settings]
    if benchmark.header.watched == 0 or any(value is None for values in runs for value in values):
        raise UsageError(
            f"{benchmark.header.name}: recorded without test accuracies, which a replay needs to measure regret; "
            "record the table with nbt record --dataset"
        )
    accuracies = [np.asarray(values, dtype=float) for values in runs]
    test = np.asarray([values.mean() for values in accuracies])
    counts = np.asarray([len(values) for values in accuracies], dtype=float)
    seed_std, pairs = run_noise(accuracies, float(np.median(test)))
    image_std = image_noise(test, benchmark)
    variance = (seed_std or 0.0) ** 2 / counts + image_std**2
    smoothed = denoise_accuracies(test, variance, *_points_and_kernel(benchmark))
    return GroundTruth(
        test=test,
        smoothed=smoothed,
        best=float(smoothed.max()),
        median=float(np.median(smoothed)),
        run_noise=seed_std,
        pairs=pairs,
        image_noise=image_std,
    )


def _points_and_kernel(benchmark: TabularBenchmark) -> tuple[FloatArray, Kernel]:
    """Returns the encoded settings, with their length if the runs differ in it, and the mode of the kernel's prior."""
    settings, kernel = [setting.settings for setting in benchmark.settings], default_kernel()
    if benchmark.space.epochs is None:
        return encode(settings), kernel
    scales = np.r_[kernel.length_scales, kernel.length_scales[:1]]
    return encode_with_length(settings), dataclasses.replace(kernel, length_scales=scales)


def run_noise(accuracies: list[FloatArray], floor: float) -> tuple[float | None, int]:
    """Estimates the standard deviation of the accuracy over seeds from pairs of runs of equal settings.

    Args:
        accuracies: Accuracies of the runs of each setting; the first two of a setting form a pair.
        floor: Only pairs with at least this mean accuracy are used, if there are three or more of them: poor settings
            vary far more, and a search need not distinguish them.

    Returns:
        The standard deviation (None without pairs) and the number of pairs.
    """
    pairs = [(values[0] + values[1], values[0] - values[1]) for values in accuracies if len(values) > 1]
    good = [difference for total, difference in pairs if total / 2 >= floor]
    differences = good if len(good) >= 3 else [difference for _, difference in pairs]
    if not differences:
        return None, 0
    return math.sqrt(float(np.mean(np.square(differences))) / 2), len(differences)


def image_noise(test: FloatArray, benchmark: TabularBenchmark) -> float:
    """Returns the standard deviation of a setting's test accuracy due to the draw of the test images.

    The images of a split favour the same settings in every run, so that pairs of seeds do not show this noise. The
    differences between the validation and test accuracies of the same runs show it: over the better half of the
    settings, the variance of the difference is the sum of the variances of both splits, each inversely proportional to
    the number of images. A difference in difficulty between the splits is common to all settings and has no effect.

    Args:
        test: Mean test accuracy of each setting, (settings,).
        benchmark: Benchmark of the settings.
    """
    validation = np.asarray([np.mean([run.val_accuracy for run in setting.runs]) for setting in benchmark.settings])
    upper = test + validation >= np.median(test + validation)
    images = benchmark.header.facts.get(VALIDATION_IMAGES) or benchmark.header.watched
    share = (1 / benchmark.header.watched) / (1 / benchmark.header.watched + 1 / images)
    return math.sqrt(float(np.var((test - validation)[upper])) * share)


def denoise_accuracies(
    test: FloatArray, variance: FloatArray, points: FloatArray, prior_mode: Kernel | None = None
) -> FloatArray:
    """Returns accuracies without the noise of seeds and test images.

    The maximum of many noisy accuracies is biased upwards. A Gaussian process over the settings, with a fitted kernel,
    removes the known noise; deviations beyond it count as real even if similar settings do not share them. Settings
    below the median enter the fit with the median, because settings that fail carry no information on good ones, and
    keep their own mean in the result.

    Args:
        test: Mean accuracy of each setting, (settings,).
        variance: Variance of each mean, (settings,).
        points: Encoded settings, (settings, coordinates).
        prior_mode: Mode of the kernel's prior; see `GaussianProcess.fit`.
    """
    median = float(np.median(test))
    clipped = np.maximum(test, median)
    std = float(clipped.std())
    if len(test) < _MIN_SETTINGS or std == 0.0 or not variance.any():
        return test.copy()
    values = (clipped - clipped.mean()) / std
    process = GaussianProcess.fit(points, values, noise=variance / std**2, prior_mode=prior_mode)
    return np.where(test >= median, clipped.mean() + std * process.denoised_values(), test)
