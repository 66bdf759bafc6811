"""Further pruners of Optuna, for comparisons."""

from __future__ import annotations

import math

import optuna

from nbt.tuning.pruners.base import OptunaPruner


def median_pruner(length: int) -> OptunaPruner:
    """Returns the median rule (Golovin et al. 2017): stops a trial below the median of earlier trials at its epoch.

    It starts after five full trials, Optuna's default, and after a third of a trial, for the reason that `AshaPruner`
    gives.

    Args:
        length: Epochs of a full trial.
    """
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, math.ceil(length / 3)))
    return OptunaPruner(pruner, "its best accuracy is below the median of earlier trials")


def hyperband_pruner(length: int) -> OptunaPruner:
    """Returns Hyperband (Li et al. 2018, arXiv 1603.06560) as published: minimum resource of one epoch, eta 3.

    The sampler uses the trials of all brackets, as in BOHB (Falkner et al. 2018, arXiv 1807.01774).

    Args:
        length: Epochs of a full trial.
    """
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=length, reduction_factor=3)
    return OptunaPruner(pruner, "its accuracy is not among the best third at this rung of its bracket")
