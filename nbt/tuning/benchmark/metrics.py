"""How good a search was: simple regret by epochs, epochs to come near the best, intervals and paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbt.training.results import best_epoch
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import FloatArray, TabularBenchmark

NEAR_BEST_TOLERANCE = 0.005
_NUM_BOOTSTRAP_RESAMPLES = 2000


@dataclass(frozen=True)
class IntervalEstimate:
    """A statistic with its 95 % percentile bootstrap interval over seeds."""

    value: float
    low: float
    high: float


def incumbent_path(trials: Sequence[ReplayedTrial], benchmark: TabularBenchmark, horizon: int) -> NDArray[np.int64]:
    """Returns the index of the incumbent's setting after each epoch of a search, -1 where there is none yet.

    The incumbent is the finished full-length trial of the best validation accuracy so far; of equal ones that with
    the lower validation loss, then the earlier.

    Args:
        trials: In the order in which they ended.
        catalogue: What their settings are indices of.
        horizon: Number of epochs, and length of the result.
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
    run = benchmark.settings[trial.setting].runs[trial.run]
    best = best_epoch(run.curve)
    loss = math.inf if run.diverged or best is None or best.val_loss is None else best.val_loss
    return run.val_accuracy, -loss


def regret_curve(path: NDArray[np.int64], accuracies: FloatArray, best: float, chance_accuracy: float) -> FloatArray:
    """Returns the simple regret after each epoch, in accuracy; below 0 where an incumbent is luckier than the best.

    Args:
        path: Incumbents, -1 for none.
        accuracies: Accuracy of each setting.
        best: What regret is measured from.
        chance_accuracy: Accuracy before there is an incumbent, that of guessing.
    """
    return best - np.where(path < 0, chance_accuracy, accuracies[path])


def epochs_to_reach(regret: FloatArray, near: float = NEAR_BEST_TOLERANCE) -> int | None:
    """Returns after how many epochs the regret is at most `near` for the first time; None where it never is."""
    # What is 0.5 points by arithmetic must not fail by the last bit.
    reached = np.flatnonzero(regret <= near + 1e-9)
    return int(reached[0]) + 1 if len(reached) else None


def epochs_to_stay(regret: FloatArray, near: float = NEAR_BEST_TOLERANCE) -> int | None:
    """Returns after how many epochs the regret is at most `near` for good; None where it is not so at the end.

    A lucky incumbent comes near the best and goes away again when a worse one looks better on validation.
    """
    away = np.flatnonzero(regret > near + 1e-9)
    first = int(away[-1]) + 1 if len(away) else 0
    return first + 1 if first < len(regret) else None


def bootstrap_mean(curves: FloatArray, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns the mean of curves with the ends of its 95 % bootstrap interval.

    Args:
        curves: (seeds, epochs).
        seed: Of the resampling.
    """
    draws = np.random.default_rng(seed).integers(len(curves), size=(_NUM_BOOTSTRAP_RESAMPLES, len(curves)))
    shares = np.stack([np.bincount(draw, minlength=len(curves)) for draw in draws]) / len(curves)
    low, high = np.quantile(shares @ curves, (0.025, 0.975), axis=0)
    return curves.mean(axis=0), low, high


def bootstrap_median(values: Sequence[float], seed: int = 0) -> IntervalEstimate:
    """Returns the median with its bootstrap interval; values may be infinite."""
    array = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(array), size=(_NUM_BOOTSTRAP_RESAMPLES, len(array)))
    medians = np.sort(_median(array[draws]))
    return IntervalEstimate(
        float(_median(array[None])[0]),
        float(medians[_NUM_BOOTSTRAP_RESAMPLES // 40]),
        float(medians[-_NUM_BOOTSTRAP_RESAMPLES // 40]),
    )


def _median(rows: FloatArray) -> FloatArray:
    """Returns the lower median of each row, which exists where values are infinite."""
    return np.sort(rows, axis=1)[:, (rows.shape[1] - 1) // 2]


def bootstrap_mean_estimate(values: Sequence[float], seed: int = 0) -> IntervalEstimate:
    """Returns the mean with its bootstrap interval."""
    mean, low, high = bootstrap_mean(np.asarray(values, dtype=float)[:, None], seed)
    return IntervalEstimate(float(mean[0]), float(low[0]), float(high[0]))


def paired_test(values: Sequence[float], reference: Sequence[float]) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test; 1 where no pair differs.

    Pairs are (task, seed); those of one task are alike, so that it tells chance in seeds, not in tasks.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(reference, dtype=float)
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, zero_method="zsplit", method="approx").pvalue)


def ranks(scores: FloatArray) -> FloatArray:
    """Returns the rank of each method in each search, 1 the least score, equal scores sharing the mean of theirs.

    Args:
        scores: (methods, searches).
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores, axis=0))
