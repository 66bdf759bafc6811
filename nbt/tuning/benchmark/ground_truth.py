"""GroundTruth: what each recorded setting is worth, judged on images that no search method sees; and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbt.errors import UsageError
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark
from nbt.tuning.space.encoding import encode
from nbt.tuning.storage.codec import VALIDATION_IMAGES
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel
from nbt.tuning.surrogate.kernel import default_kernel

_MIN_SETTINGS = 8


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The judged accuracies of a catalogue's settings, 0 ... 1.

    Attributes:
        test: Accuracy on the test images of the epoch that validation keeps, the mean over the setting's runs.
        smoothed: The same with luck taken out, see `denoise_accuracies`.
        best: The greatest of `smoothed`: what a search is measured against. It is what the setting that looks best
            is worth; the greatest worth of all, which a noisy table cannot show, is a little higher.
        median: The median of `smoothed`: what half of all random settings reach.
        run_noise: Standard deviation of one run's accuracy over seeds, from pairs of runs; None without pairs.
        pairs: Number of pairs that `run_noise` is from.
        image_noise: Standard deviation of a setting's accuracy that the draw of the test images leaves.
    """

    test: FloatArray
    smoothed: FloatArray
    best: float
    median: float
    run_noise: float | None
    pairs: int
    image_noise: float


def estimate_ground_truth(benchmark: TabularBenchmark) -> GroundTruth:
    """Returns the judged accuracies of a task.

    Raises:
        UsageError: The table has no test accuracies.
    """
    runs = [[run.test_accuracy for run in setting.runs] for setting in benchmark.settings]
    if benchmark.header.watched == 0 or any(value is None for values in runs for value in values):
        raise UsageError(f"{benchmark.header.name}: recorded without test accuracies, which a replay judges by")
    accuracies = [np.asarray(values, dtype=float) for values in runs]
    test = np.asarray([values.mean() for values in accuracies])
    counts = np.asarray([len(values) for values in accuracies], dtype=float)
    by_seed, pairs = run_noise(accuracies, float(np.median(test)))
    by_images = image_noise(test, benchmark)
    variance = (by_seed or 0.0) ** 2 / counts + by_images**2
    points = encode([setting.settings for setting in benchmark.settings])
    smoothed = denoise_accuracies(test, variance, points, default_kernel())
    return GroundTruth(
        test=test,
        smoothed=smoothed,
        best=float(smoothed.max()),
        median=float(np.median(smoothed)),
        run_noise=by_seed,
        pairs=pairs,
        image_noise=by_images,
    )


def run_noise(accuracies: list[FloatArray], floor: float) -> tuple[float | None, int]:
    """Returns the standard deviation over seeds, from differences of pairs, and the number of pairs.

    It counts settings of at least `floor` alone, as long as there are three pairs of them: settings that train badly
    scatter far more, and are not what a search has to tell apart.
    """
    pairs = [(values[0] + values[1], values[0] - values[1]) for values in accuracies if len(values) > 1]
    good = [gap for total, gap in pairs if total / 2 >= floor]
    gaps = good if len(good) >= 3 else [gap for _, gap in pairs]
    return (math.sqrt(float(np.mean(np.square(gaps))) / 2), len(gaps)) if gaps else (None, 0)


def image_noise(test: FloatArray, benchmark: TabularBenchmark) -> float:
    """Returns the standard deviation of a setting's test accuracy that the draw of the test images leaves.

    Which images are in a split favours some settings over others, in every run of them alike, so pairs of seeds do
    not show it. The same run's accuracies on validation and test images do: in the better half of the settings the
    variance of their difference is the sum of both splits' parts, which are as their numbers of images are to each
    other. What all settings share (a harder split) drops out.
    """
    validation = np.asarray([np.mean([run.val_accuracy for run in setting.runs]) for setting in benchmark.settings])
    upper = test + validation >= np.median(test + validation)
    images = benchmark.header.facts.get(VALIDATION_IMAGES) or benchmark.header.watched
    share = (1 / benchmark.header.watched) / (1 / benchmark.header.watched + 1 / images)
    return math.sqrt(float(np.var((test - validation)[upper])) * share)


def denoise_accuracies(
    test: FloatArray, variance: FloatArray, points: FloatArray, around: Kernel | None = None
) -> FloatArray:
    """Returns accuracies with the luck of runs and images taken out, as far as the table tells luck from merit.

    The best of 200 noisy accuracies is too high. A Gaussian process over the settings (its kernel is fitted; of a
    deviation that neighbours do not share, the part that is no known noise counts as real) gives what each is worth.
    Settings under the median count as the median: that a recipe breaks down next door says nothing on a good one. The
    lower half, where nothing is searched for, keeps its own mean.

    Args:
        test: Mean accuracy of each setting, (settings,).
        variance: Of each of these means, (settings,).
        points: The settings, (settings, coordinates).
        around: See `GaussianProcess.fit`.
    """
    middle = float(np.median(test))
    clipped = np.maximum(test, middle)
    spread = float(clipped.std())
    if len(test) < _MIN_SETTINGS or spread == 0.0 or not variance.any():
        return test.copy()
    values = (clipped - clipped.mean()) / spread
    process = GaussianProcess.fit(points, values, noise=variance / spread**2, around=around)
    return np.where(test >= middle, clipped.mean() + spread * process.smoothed(), test)
