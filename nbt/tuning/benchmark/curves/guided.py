"""The default search of nbt on generic tables: its Gaussian process and its curve forests, without profile and priors.

Settings of other tables play the role of recorded tasks: the mean of the Gaussian process is a weighted sum of what
they predict, with uncertain weights, as in `nbt.tuning.surrogate.prior_surrogate`; quantile forests on pairs of curves
stop trials, as in `nbt.tuning.pruners.curve_forecast`. Without other tables, successive halving with the rungs and
the rule of `nbt.tuning.pruners.base.AshaPruner` stops trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from nbt.seeds import derive_seed
from nbt.tuning.benchmark.curves.search import CurveSearch
from nbt.tuning.benchmark.curves.table import CurveTask, FloatArray
from nbt.tuning.pruners.base import is_in_best_half
from nbt.tuning.pruners.curve_forecast import ForecastDistribution
from nbt.tuning.pruners.quantile_forest import QuantileForest
from nbt.tuning.samplers.bayesian import expected_improvement
from nbt.tuning.surrogate.gaussian_process import GaussianProcess, Kernel

_MAX_MODELLED_SETTINGS, _MAX_EXAMPLE_SETTINGS, _MAX_MODELLED_TRIALS = 200, 150, 150
_FRACTIONS = (0.06, 0.12, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85)
_STOP_CHANCE, _MIN_TRAINED_FRACTION = 0.05, 0.06
_TABLE_WEIGHT_STD, _AMPLITUDE, _NOISE = 0.4, 0.5, 0.05
_PARTIAL_VARIANCE = 0.3
_FIT_EVERY = 5


def guided(search: CurveSearch, others: Sequence[CurveTask], seed: int) -> None:
    """Searches with nbt's model until the budget of the search is spent.

    Args:
        search: The search.
        others: Other tables; those whose hyperparameters have other names or kinds are not used.
        seed: Seed of the random candidates.
    """
    usable = tuple(other for other in others if other.kinds() == search.task.kinds())
    _GuidedSearch(search, usable, seed).run()


class _GuidedSearch:
    """State of one search.

    Args:
        search: The search.
        others: Other tables with the same hyperparameters.
        seed: Seed of the random candidates.
    """

    def __init__(self, search: CurveSearch, others: tuple[CurveTask, ...], seed: int) -> None:
        self._search, self._rng = search, np.random.default_rng(seed)
        self._curves, self._points = search.task.model_scores(), search.task.points()
        self._forest = _forest(others) if others else None
        self._sources = np.stack([_predict(other, search.task) for other in others]) if others else None
        self._forecasts: dict[int, float] = {}  # of the stopped trials only
        self._kernel: Kernel | None = None
        self._rung_scores: dict[int, list[float]] = {}

    def run(self) -> None:
        """Trains settings until the budget is spent."""
        task = self._search.task
        while True:
            setting = self._propose()
            for epoch in range(1, task.length + 1):
                if not np.isfinite(self._search.train(setting)):
                    break
                if epoch < task.length and self._stops(setting, epoch):
                    break

    def _propose(self) -> int:
        """Returns the setting with the greatest expected improvement among a random half of the unused ones."""
        unused = np.array(self._search.unused)
        candidates = self._rng.choice(unused, size=max(1, len(unused) // 2), replace=False)
        trained = list(self._search.trained)
        if not trained:
            return int(candidates[0] if self._sources is None else candidates[self._mean(candidates).argmax()])
        values, noise = self._values(trained)
        basis = None if self._sources is None else _TABLE_WEIGHT_STD * self._sources
        residual = values - self._mean(np.array(trained))
        process = self._fit(np.array(trained), residual, noise, basis)
        mean, variance = process.predict(self._points[candidates], None if basis is None else basis[:, candidates])
        fitted = process.mean(process.points, process.basis if len(process.basis) else None)
        best = float((self._mean(np.array(trained)) + fitted).max())
        gain = expected_improvement(self._mean(candidates) + mean, np.sqrt(variance), best)
        return int(candidates[gain.argmax()])

    def _fit(
        self, trained: np.ndarray, values: FloatArray, noise: FloatArray, basis: FloatArray | None
    ) -> GaussianProcess:
        """Returns the process of the trials; its kernel is fitted again after every few trials without tables."""
        points = self._points[trained]
        known = None if basis is None else basis[:, trained]
        if self._kernel is None:
            default = Kernel.default(points.shape[1])
            self._kernel = Kernel(default.length_scales, _AMPLITUDE if basis is not None else 1.0, _NOISE)
        if basis is None and len(trained) >= 10 and len(trained) % _FIT_EVERY == 0:
            recent = slice(-_MAX_MODELLED_TRIALS, None)
            mode = Kernel(Kernel.default(points.shape[1]).length_scales, 1.0, _NOISE)
            self._kernel = GaussianProcess.fit(
                points[recent], values[recent], noise=noise[recent], prior_mode=mode
            ).kernel
        return GaussianProcess.with_kernel(self._kernel, points, values, noise=noise, basis=known)

    def _mean(self, settings: np.ndarray) -> FloatArray:
        """Returns the expected values of settings before any trial: the mean over the tables."""
        if self._sources is None:
            return np.zeros(len(settings))
        return np.asarray(self._sources[:, settings].mean(axis=0))

    def _values(self, trained: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Returns the standardised scores of the trials, forecast ones where they were stopped, and their variances.

        Scores below the lower quartile are raised to it: settings that fail carry no information on good ones.
        """
        full = self._search.task.length
        ends = np.array([self._curves[i, self._search.trained[i] - 1] for i in trained])
        ends = np.array([max(self._forecasts.get(i, end), end) for i, end in zip(trained, ends, strict=True)])
        finite = ends[np.isfinite(ends)]
        floor = float(np.quantile(finite, 0.25)) if len(finite) else 0.0
        values = np.maximum(np.where(np.isfinite(ends), ends, floor), floor)
        noise = np.where([self._search.trained[i] == full for i in trained], 0.0, _PARTIAL_VARIANCE)
        return (values - values.mean()) / max(float(values.std()), 1e-9), noise

    def _stops(self, setting: int, epoch: int) -> bool:
        return self._halving_stops(setting, epoch) if self._forest is None else self._forecast_stops(setting, epoch)

    def _halving_stops(self, setting: int, epoch: int) -> bool:
        """Returns whether a trial is not among the best half at one or two thirds of its length."""
        third = -(-self._search.task.length // 3)
        if epoch not in (third, 2 * third):
            return False
        score, scores = float(self._curves[setting, epoch - 1]), self._rung_scores.setdefault(epoch, [])
        scores.append(score)
        return not is_in_best_half(score, scores)

    def _forecast_stops(self, setting: int, epoch: int) -> bool:
        """Returns whether the chance to beat the best finished trial is too small to go on; notes the forecast then."""
        task = self._search.task
        references = sorted(filter(self._search.is_complete, self._search.trained), key=self._search.score)[-3:]
        if not references or epoch < _MIN_TRAINED_FRACTION * task.length or self._forest is None:
            return False
        rows = np.array([_features(self._curves[setting, :epoch], self._curves[i]) for i in references], np.float32)
        ends = [float(self._curves[i, -1]) for i in references]
        parts = [
            (end + values, weights / len(ends))
            for end, (values, weights) in zip(ends, self._forest.outcomes(rows), strict=True)
        ]
        forecast = ForecastDistribution.mixture(parts)
        if forecast.probability_above(max(ends)) >= _STOP_CHANCE:
            return False
        self._forecasts[setting] = forecast.mean
        return True


def _features(curve: FloatArray, reference: FloatArray) -> list[float]:
    """Returns the features of a partial curve beside a finished one, at the same position in the schedule."""
    epoch, length = len(curve), len(reference)
    window = max(0, epoch - 1 - round(0.25 * length))
    rise, reference_rise = curve[-1] - curve[window], reference[epoch - 1] - reference[window]
    features = [
        epoch / length,
        curve[-1] - reference[epoch - 1],
        curve.max() - reference[:epoch].max(),
        rise,
        rise - reference_rise,
        reference[-1] - reference[epoch - 1],
        curve[-1] - curve[0],
        curve[-1] - reference[-1],
    ]
    return [float(np.clip(value, -3.0, 3.0)) for value in features]


@lru_cache(maxsize=32)
def _forest(tables: tuple[CurveTask, ...]) -> QuantileForest:
    """Returns the forest of the difference between the ends of two curves, learned from other tables."""
    rows, outcomes, groups = [], [], []
    for group, table in enumerate(tables):
        rng = np.random.default_rng(derive_seed(0, "curve examples", table.name))
        curves = table.model_scores()
        finite = np.flatnonzero(np.isfinite(curves[:, -1]))
        top = finite[np.argsort(-curves[finite, -1])][: max(2, len(finite) // 10)]
        for setting in rng.choice(finite, size=min(_MAX_EXAMPLE_SETTINGS, len(finite)), replace=False):
            for fraction in _FRACTIONS:
                reference = curves[int(rng.choice(top))]
                curve = curves[setting, : max(1, round(fraction * table.length))]
                rows.append(_features(curve, reference))
                outcomes.append(float(np.clip(curves[setting, -1] - reference[-1], -3.0, 3.0)))
                groups.append(group)
    return QuantileForest.fit(np.array(rows, np.float32), np.array(outcomes), np.array(groups))


def _predict(table: CurveTask, task: CurveTask) -> FloatArray:
    """Returns what a table predicts for the settings of another task, standardised over them, (settings,)."""
    points = np.stack([table.point_of(task.params(setting)) for setting in range(len(task))])
    predicted = _table_process(table).mean(points)
    return np.asarray((predicted - predicted.mean()) / max(float(predicted.std()), 1e-9))


@lru_cache(maxsize=32)
def _table_process(table: CurveTask) -> GaussianProcess:
    """Returns the process of a table's last scores as normal scores; those below the median are raised to it.

    Ranks within a table are mapped to a normal distribution (a Gaussian copula; Salinas et al. 2020, arXiv 1909.13595),
    so that tables with values of different scales can be compared.
    """
    rng = np.random.default_rng(derive_seed(0, "modelled settings", table.name))
    last = table.scores[:, -1]
    values = np.maximum(ndtri(rankdata(last) / (len(last) + 1)), 0.0)
    chosen = rng.choice(len(last), size=min(_MAX_MODELLED_SETTINGS, len(last)), replace=False)
    return GaussianProcess.fit(table.points()[chosen], values[chosen])
