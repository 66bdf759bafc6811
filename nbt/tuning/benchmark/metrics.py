"""Metrics of a search: simple regret by epoch, epochs until it is near the best setting, intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark

NEAR_BEST_TOLERANCE = 0.005
"""Regret, as a difference of accuracies, up to which a search counts as near the best setting."""

_NUM_BOOTSTRAP_RESAMPLES = 2000


@dataclass(frozen=True)
class IntervalEstimate:
    """A statistic with its 95 % percentile bootstrap interval over seeds.

    Attributes:
        value: The statistic.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Returns the columns of a statistic in a table of results: its name, and the name with `_low` and `_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def incumbent_path(trials: Sequence[ReplayedTrial], benchmark: TabularBenchmark, horizon: int) -> NDArray[np.int64]:
    """Returns the index of the incumbent's setting after each epoch of a search, -1 while there is none, (horizon,).

    The incumbent is the trial with the best validation accuracy among those that ran to their end. Ties are broken by
    the lower validation loss, then by the earlier end.

    Args:
        trials: Trials of the search in the order in which they ended.
        benchmark: Benchmark of the task.
        horizon: Number of epochs.
    """
    path = np.full(horizon, -1, dtype=np.int64)
    best_rank = (-math.inf, -math.inf)
    for trial in trials:
        if trial.stopped is not None or trial.cumulative_epochs > horizon:
            continue
        rank = _validation_rank(benchmark, trial)
        if rank > best_rank:
            best_rank = rank
            path[trial.cumulative_epochs - 1 :] = trial.setting
    return path


def _validation_rank(benchmark: TabularBenchmark, trial: ReplayedTrial) -> tuple[float, float]:
    """Returns the validation accuracy and the negative validation loss of a trial, by which incumbents are ranked."""
    run = benchmark.settings[trial.setting].runs[trial.run]
    loss = None if run.diverged else run.curve[-1].val_loss
    return run.val_accuracy, -math.inf if loss is None else -loss


def regret_curve(path: NDArray[np.int64], accuracies: FloatArray, best: float, chance_accuracy: float) -> FloatArray:
    """Returns the simple regret after each epoch, as a difference of accuracies, (epochs,).

    It is negative where a noisy accuracy of the incumbent exceeds `best`.

    Args:
        path: Index of the incumbent's setting after each epoch, -1 for none.
        accuracies: Accuracy of each setting, (settings,).
        best: Accuracy from which regret is measured.
        chance_accuracy: Accuracy of guessing, which counts while there is no incumbent.
    """
    return best - np.where(path < 0, chance_accuracy, accuracies[path])


def regret_unit(values: FloatArray) -> float:
    """Returns the unit of the normalised regret: the difference between the best and the median value.

    Where the median equals the best, or its run diverged, it is the difference between the best and the worst finite
    value; where all finite values are equal, it is 1. Differences below a billionth of the best count as rounding
    errors.

    Args:
        values: Value of each setting, -inf for a run that diverged; at least one is finite, (settings,).
    """
    finite = values[np.isfinite(values)]
    best = float(finite.max())
    units = (best - float(np.median(values)), best - float(finite.min()))
    return next((unit for unit in units if 1e-9 * abs(best) < unit < math.inf), 1.0)


def epochs_to_reach(regret: FloatArray, tolerance: float = NEAR_BEST_TOLERANCE) -> int | None:
    """Returns the number of epochs until the regret is at most `tolerance` for the first time; None if it never is."""
    # The margin allows for rounding errors.
    reached = np.flatnonzero(regret <= tolerance + 1e-9)
    return int(reached[0]) + 1 if len(reached) else None


def epochs_to_stay(regret: FloatArray, tolerance: float = NEAR_BEST_TOLERANCE) -> int | None:
    """Returns the number of epochs after which the regret stays at most `tolerance`; None if it is greater at the end.

    The regret can rise again, when a worse setting has a better validation accuracy.
    """
    above = np.flatnonzero(regret > tolerance + 1e-9)
    first = int(above[-1]) + 1 if len(above) else 0
    return first + 1 if first < len(regret) else None


def bootstrap_mean(curves: FloatArray, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns the mean of curves and the lower and upper end of its 95 % bootstrap interval, (epochs,) each.

    Args:
        curves: Curves, (seeds, epochs).
        seed: Seed of the resampling.
    """
    samples = np.random.default_rng(seed).integers(len(curves), size=(_NUM_BOOTSTRAP_RESAMPLES, len(curves)))
    weights = np.stack([np.bincount(sample, minlength=len(curves)) for sample in samples]) / len(curves)
    low, high = np.quantile(weights @ curves, (0.025, 0.975), axis=0)
    return curves.mean(axis=0), low, high


def bootstrap_median(values: Sequence[float], seed: int = 0) -> IntervalEstimate:
    """Returns the lower median with its bootstrap interval.

    Args:
        values: One value per search; may be infinite.
        seed: Seed of the resampling.
    """
    array = np.asarray(values, dtype=float)
    samples = np.random.default_rng(seed).integers(len(array), size=(_NUM_BOOTSTRAP_RESAMPLES, len(array)))
    medians = np.sort(_median(array[samples]))
    return IntervalEstimate(
        float(_median(array[None])[0]),
        float(medians[_NUM_BOOTSTRAP_RESAMPLES // 40]),
        float(medians[-_NUM_BOOTSTRAP_RESAMPLES // 40]),
    )


def _median(rows: FloatArray) -> FloatArray:
    """Returns the lower median of each row, which is also defined for infinite values."""
    return np.sort(rows, axis=1)[:, (rows.shape[1] - 1) // 2]


def bootstrap_mean_estimate(values: Sequence[float], seed: int = 0) -> IntervalEstimate:
    """Returns the mean with its bootstrap interval.

    Args:
        values: One value per search.
        seed: Seed of the resampling.
    """
    mean, low, high = bootstrap_mean(np.asarray(values, dtype=float)[:, None], seed)
    return IntervalEstimate(float(mean[0]), float(low[0]), float(high[0]))


def paired_test(values: Sequence[float], reference: Sequence[float]) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test; 1 if no pair differs.

    Args:
        values: One value per pair of task and seed. Values of one task are correlated, so that the test accounts for
            the choice of seeds but not of tasks.
        reference: The values of the other method, in the same order.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(reference, dtype=float)
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, zero_method="zsplit", method="approx").pvalue)


def ranks(scores: FloatArray) -> FloatArray:
    """Returns the rank of each method in each search, 1 for the lowest score; ties have the mean of their ranks.

    Args:
        scores: Scores, (methods, searches).
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores, axis=0))
