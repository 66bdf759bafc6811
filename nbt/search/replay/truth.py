"""Truth: what each recorded setting is worth, judged on images that no search method sees; and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbt.errors import UsageError
from nbt.search.replay.pool import Catalogue, Vector
from nbt.search.stats import accuracy_error

# Widths of the neighbourhood to choose from, in units of the median distance to the nearest neighbour.
_WIDTHS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
_FEW = 4


@dataclass(frozen=True, eq=False)
class Truth:
    """The judged accuracies of a catalogue's settings, 0 ... 1.

    Attributes:
        test: Accuracy on the test images of the epoch that validation keeps, the mean over the setting's runs.
        smoothed: The same with luck taken out, see `smooth`.
        best: The greatest of `smoothed`: what a search is measured against. It is what the setting that looks best
            is worth; the greatest worth of all, which a noisy table cannot show, is a little higher.
        median: The median of `smoothed`: what half of all random settings reach.
        run_noise: Standard deviation of one run's accuracy over seeds, from pairs of runs; None without pairs.
        pairs: Number of pairs that `run_noise` is from.
        image_noise: Standard error of the best accuracy that the number of test images leaves.
    """

    test: Vector
    smoothed: Vector
    best: float
    median: float
    run_noise: float | None
    pairs: int
    image_noise: float


def judge(catalogue: Catalogue) -> Truth:
    """Returns the judged accuracies of a task.

    Raises:
        UsageError: The table has no test accuracies.
    """
    runs = [[run.test_accuracy for run in setting.runs] for setting in catalogue.settings]
    if catalogue.header.watched == 0 or any(value is None for values in runs for value in values):
        raise UsageError(f"{catalogue.header.name}: recorded without test accuracies, which a replay judges by")
    accuracies = [np.asarray(values, dtype=float) for values in runs]
    test = np.asarray([values.mean() for values in accuracies])
    counts = np.asarray([len(values) for values in accuracies], dtype=float)
    noise, pairs = run_noise(accuracies, float(np.median(test)))
    image_noise = accuracy_error(float(test.max()), catalogue.header.watched)
    smoothed = smooth(test, counts, catalogue.points, image_noise if noise is None else noise)
    return Truth(
        test=test,
        smoothed=smoothed,
        best=float(smoothed.max()),
        median=float(np.median(smoothed)),
        run_noise=noise,
        pairs=pairs,
        image_noise=accuracy_error(float(smoothed.max()), catalogue.header.watched),
    )


def run_noise(accuracies: list[Vector], floor: float) -> tuple[float | None, int]:
    """Returns the standard deviation over seeds, from differences of pairs, and the number of pairs.

    It counts settings of at least `floor` alone, as long as there are three pairs of them: settings that train badly
    scatter far more, and are not what a search has to tell apart.
    """
    pairs = [(values[0] + values[1], values[0] - values[1]) for values in accuracies if len(values) > 1]
    good = [gap for total, gap in pairs if total / 2 >= floor]
    gaps = good if len(good) >= 3 else [gap for _, gap in pairs]
    return (math.sqrt(float(np.mean(np.square(gaps))) / 2), len(gaps)) if gaps else (None, 0)


def smooth(test: Vector, counts: Vector, points: Vector, noise: float) -> Vector:
    """Returns accuracies with the luck of single runs taken out, as far as the table tells luck from merit.

    The best of 200 noisy accuracies is too high. Each setting of the upper half is drawn towards the average of its
    neighbours (Gaussian weights; their width is the one that predicts left-out settings best) by the share of its
    deviation from them that is noise: Fay and Herriot 1979, doi 10.1080/01621459.1979.10482505. Neighbours under the
    median count as the median: that a recipe breaks down next door says nothing on a good one. The lower half, where
    nothing is searched for, keeps its own mean.

    Args:
        test: Mean accuracy of each setting, (settings,).
        counts: Number of runs of each setting, (settings,).
        points: Places of the settings, (settings, coordinates).
        noise: Standard deviation of one run.
    """
    upper = test >= np.median(test)
    if len(test) < _FEW or noise == 0.0:
        return test.copy()
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    unit = float(np.median(gaps.min(axis=1))) or 1.0
    clipped = np.maximum(test, np.median(test))
    predictions = [_neighbours(clipped, counts, gaps / (width * unit)) for width in _WIDTHS]
    expected = min(predictions, key=lambda values: float(np.mean((values - test)[upper] ** 2)))
    variance = noise**2 / counts
    merit = max(0.0, float(np.mean(((expected - test) ** 2 - variance)[upper])))
    trust = merit / (merit + variance)
    return np.where(upper, trust * test + (1 - trust) * expected, test)


def _neighbours(values: Vector, counts: Vector, gaps: Vector) -> Vector:
    """Returns the weighted mean of all other values, (settings,); `gaps` are in widths, infinite to oneself."""
    logs = np.log(counts) - 0.5 * gaps**2
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(weights @ values / weights.sum(axis=1))
