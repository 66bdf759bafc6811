"""Importance of hyperparameters for the best trials of a study, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from nbt.tuning.ped_anova import FloatArray, IntArray, grids_of, ped_anova

MIN_TRIALS = 8
_TOP_QUANTILE = 0.25
RESAMPLES = 100
"""Number of bootstrap resamples of the intervals."""
_MAX_DRAWN = 200


class Importance:
    """Importance of each parameter of a study for reaching the best quarter of its full-length trials, by PED-ANOVA.

    Pruned trials are excluded because their learning rate was not annealed. The paper's default quantile, the best
    tenth, would be one or two trials in a study of common size.

    Args:
        trials: Trials of a study to be maximised; they are not kept.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        full = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
        self._values = np.array([trial.value for trial in full], dtype=float)
        self._grids = grids_of(full)

    def shares(self) -> dict[str, float]:
        """Returns the share of each parameter by name.

        The shares sum to 1 and are sorted, largest first. Empty with fewer than 8 full-length trials, or if the lowest
        value occurs in the best quarter.
        """
        if len(self._values) < MIN_TRIALS or not self._grids:
            return {}
        rows = self._shares(np.arange(len(self._values))[None])
        shares = dict(zip(self._grids, rows[0].tolist(), strict=True)) if len(rows) else {}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Returns the 95 % interval of each share: quantiles over bootstrap resamples of the full-length trials.

        Trials are drawn with replacement, as if the same search were repeated with other trials: as many as there are,
        but at most 200, in which case the deviations are scaled by the square root of the ratio (Bickel et al. 1997,
        "Resampling fewer than n observations"). The resamples are the same at every call. Those in which no share is
        defined are left out.

        Returns:
            Parameter name -> lower and upper bound, 0 ... 1. Empty where `shares` is.
        """
        shares = self.shares()
        if not shares:
            return {}
        n_trials, n_drawn = len(self._values), min(len(self._values), _MAX_DRAWN)
        samples = self._shares(np.random.default_rng(0).integers(n_trials, size=(RESAMPLES, n_drawn)))
        centre = np.array([shares[name] for name in self._grids])
        scaled = np.quantile(samples - centre, (0.025, 0.975), axis=0) * math.sqrt(n_drawn / n_trials)
        bounds = dict(zip(self._grids, np.clip(centre + scaled, 0.0, 1.0).T.tolist(), strict=True))
        return {name: (bounds[name][0], bounds[name][1]) for name in shares}

    def _shares(self, drawn: IntArray) -> FloatArray:
        """Returns the shares of samples, (samples, parameters), without samples in which they are not defined.

        Args:
            drawn: Indices of the trials of each sample, (samples, trials).
        """
        values, number = self._values[drawn], math.ceil(_TOP_QUANTILE * drawn.shape[1])
        least = -np.partition(-values, number - 1, axis=1)[:, number - 1]
        defined = values.min(axis=1) != least
        drawn, best = drawn[defined], (values >= least[:, None])[defined]
        importances = ped_anova(self._grids, drawn, best)
        total = importances.sum(axis=1, keepdims=True)
        return np.where(total > 0.0, importances / np.where(total > 0.0, total, 1.0), 1 / len(self._grids))
