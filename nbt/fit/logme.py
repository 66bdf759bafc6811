"""LogME: the log evidence of a Bayesian linear model of the labels (You et al. 2021, arXiv 2102.11005, 2110.10545)."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_labels

_GRID_POINTS = 48
_GRID_MARGIN_DECADES = 8.0
_INVERSE_GOLDEN_RATIO = (np.sqrt(5.0) - 1.0) / 2.0
_GOLDEN_SECTION_STEPS = 10


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """Returns the maximum log evidence of the labels given the features, per sample and class.

    For every class, its one-vs-rest labels y are modelled as y = F w + noise, w ~ N(0, 1/alpha), noise ~ N(0, 1/beta);
    the log evidence ln p(y | F) is maximised over alpha and beta, divided by N, and averaged over classes. Higher is
    better. It is unbounded; for labels that are independent of the features it is that of a normal distribution, -(1 +
    ln(2 pi v)) / 2 with v the mean of y^2.

    The result is exact for any N and D: for a given t = alpha / beta the best beta has a closed form, and the remaining
    function of t is maximised on a grid and then by golden-section search. The paper's public code omits a term if N <
    D.

    Cost: one decomposition, O(N D min(N, D)), shared by all classes, and O(min(N, D) C) for each of about 70
    values of t.

    Args:
        features: (N, D); not centred, because the model has no intercept.
        labels: Integers (N,).

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, or there are fewer than two
            classes.
    """
    spectrum = Spectrum.of(features)
    return logme_from_spectrum(spectrum, check_labels(labels, spectrum.n))


def logme_from_spectrum(spectrum: Spectrum, codes: IntArray) -> float:
    """Returns LogME for decomposed features and validated labels 0 ... C-1; see `logme`."""
    squares = spectrum.class_coordinates(codes) ** 2
    counts = np.bincount(codes).astype(np.float64)
    residual = np.maximum(counts - squares.sum(axis=0), 0.0)
    if not len(spectrum.values):
        return float(np.mean(_evidence(np.zeros((1, len(counts))), spectrum.values, squares, residual, spectrum.n)))
    return float(np.mean(_maximise_evidence(spectrum.values, squares, residual, spectrum.n)))


def _evidence(log_t: FloatArray, values: FloatArray, squares: FloatArray, residual: FloatArray, n: int) -> FloatArray:
    """Returns the log evidence per sample at the best beta, (T, C), for alpha / beta = exp(log_t), (T, C) or (T, 1).

    The labels' covariance is (I + F F' / t) / beta, with eigenvalues (1 + sigma / t) / beta, and 1 / beta in the N - k
    directions orthogonal to the features.
    """
    scale = 1.0 + values[:, None] * np.exp(-log_t)[:, None, :]
    quadratic = (squares / scale).sum(axis=1) + residual
    beta = n / np.maximum(quadratic, np.finfo(np.float64).tiny)
    return np.asarray(0.5 * (np.log(beta) - np.log(2 * np.pi) - 1.0) - 0.5 / n * np.log(scale).sum(axis=1))


def _maximise_evidence(values: FloatArray, squares: FloatArray, residual: FloatArray, n: int) -> FloatArray:
    """Returns the maximum log evidence of every class, (C,)."""
    margin = _GRID_MARGIN_DECADES * np.log(10.0)
    grid = np.linspace(np.log(values[0]) - margin, np.log(values[-1]) + margin, _GRID_POINTS)
    grid_evidence = np.concatenate([_evidence(np.full((1, 1), t), values, squares, residual, n) for t in grid])
    best = grid_evidence.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)][None], grid[np.minimum(best + 1, _GRID_POINTS - 1)][None]
    for _ in range(_GOLDEN_SECTION_STEPS):
        left, right = high - _INVERSE_GOLDEN_RATIO * (high - low), low + _INVERSE_GOLDEN_RATIO * (high - low)
        is_left_better = _evidence(left, values, squares, residual, n) > _evidence(right, values, squares, residual, n)
        low, high = np.where(is_left_better, low, left), np.where(is_left_better, right, high)
    refined = _evidence((low + high) / 2, values, squares, residual, n)[0]
    return np.asarray(np.maximum(refined, grid_evidence.max(axis=0)))
