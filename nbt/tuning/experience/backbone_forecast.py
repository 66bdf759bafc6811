"""Forecast of the accuracy that tuning reaches with a backbone, from probes of its features before any training.

A regression of the log odds of the accuracy on the mean log odds of the ridge and the nearest-neighbour probe, with a
random effect per data set. It learns from the rows of `studies/backbone_forecast.py`, which also measures its error.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nbt.paths import bundled_folder
from nbt.tuning.experience.dataset_names import canonical_dataset
from nbt.tuning.storage.candidates import BackboneForecast

FloatArray = NDArray[np.float64]

COLUMNS = ("dataset", "backbone", "source", "ridge", "knn", "accuracy")
"""Columns of the rows: the data set, the backbone, where the accuracy is from, the accuracies of the probes and
the accuracy that was reached, 0 ... 1."""

_INTERVAL = 0.8
# A probe that is perfect or useless on its sample is not so in truth.
_LEAST_ERROR = 0.005


@cache
def read_rows() -> pd.DataFrame:
    """Returns the rows that are shipped with nbt."""
    return pd.read_csv(bundled_folder("studies") / "recorded" / "backbones.csv")


class BackboneForecaster:
    """The regression, fitted to rows.

    Args:
        rows: Rows with `COLUMNS`, of two data sets or more.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        probes, reached = _probe_log_odds(rows["ridge"], rows["knn"]), _log_odds(rows["accuracy"])
        groups = pd.factorize(rows["dataset"])[0]
        self._n_groups = int(groups.max()) + 1
        # Every data set has the same weight, whatever its number of rows.
        weights = 1.0 / np.bincount(groups)[groups]
        centre = float(np.average(probes, weights=weights))
        design = np.c_[np.ones(len(rows)), probes - centre]
        scale = np.sqrt(weights)[:, None]
        self._centre = centre
        self._coefficients = np.linalg.lstsq(design * scale, reached * scale[:, 0], rcond=None)[0]
        residuals = reached - design @ self._coefficients
        means = np.bincount(groups, residuals) / np.bincount(groups)
        within = residuals - means[groups]
        self._within = math.sqrt(float(within @ within) / max(1, len(rows) - self._n_groups - 1))
        self._between = float(means @ means) / max(1, self._n_groups - 2)

    def forecast(self, ridge: float, knn: float | None) -> BackboneForecast:
        """Returns the forecast for a backbone.

        Args:
            ridge: Accuracy of the ridge probe, 0 ... 1.
            knn: Accuracy of the nearest-neighbour probe, 0 ... 1; that of the ridge probe when None.
        """
        from scipy.stats import t

        probe = float(_probe_log_odds(np.array([ridge]), np.array([ridge if knn is None else knn]))[0])
        log_odds = float(self._coefficients @ [1.0, probe - self._centre])
        spread = math.sqrt(self._between * (1 + 1 / self._n_groups) + self._within**2)
        half = spread * float(t.ppf((1 + _INTERVAL) / 2, max(1, self._n_groups - 1)))
        mean, low, high = (1 / (1 + math.exp(-value)) for value in (log_odds, log_odds - half, log_odds + half))
        return BackboneForecast(mean=mean, low=low, high=high, log_odds=log_odds, spread=self._within)


def forecaster_without(dataset: str) -> BackboneForecaster:
    """Returns the regression for a data set, from the rows of all others.

    Args:
        dataset: Name of the data set, or path of its folder or file.
    """
    rows = read_rows()
    return BackboneForecaster(rows[rows["dataset"] != canonical_dataset(dataset)])


def _probe_log_odds(ridge: FloatArray, knn: FloatArray) -> FloatArray:
    return np.asarray((_log_odds(ridge) + _log_odds(knn)) / 2)


def _log_odds(accuracy: FloatArray) -> FloatArray:
    clipped = np.clip(np.asarray(accuracy, dtype=float), _LEAST_ERROR, 1 - _LEAST_ERROR)
    return np.asarray(np.log(clipped / (1 - clipped)))
