"""H-score: the share of the features' variance that separates the classes (Bao et al. 2019; Ibrahim et al. 2021)."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum, intercept_terms
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_labels

# A smaller share of the constant vector outside the features' span is a rounding error.
_SPAN_TOLERANCE = 1e-9
_BLOCK_ROWS = 512


def h_score(features: ArrayLike, labels: ArrayLike, regularized: bool = False) -> float:
    """Returns the H-score, tr(pinv(cov F) cov(E[F|y])), or its regularised form.

    The range is 0 to the smaller of C - 1 and D; higher is better. The plain form is near its maximum for any features
    if N is not much larger than D; the regularised form replaces cov F by the Ledoit-Wolf estimate, (1 - s) cov F + s
    tr(cov F)/D I, and multiplies by 1 - s (Ibrahim et al. 2021, arXiv 2110.06893).

    Cost: one decomposition, O(N D min(N, D)), and O(min(N, D) C).

    Args:
        features: (N, D).
        labels: Integers (N,).
        regularized: Whether to compute the regularised form.

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, or there are fewer than two
            classes.
    """
    spectrum = Spectrum.of(features)
    return h_score_from_spectrum(spectrum, check_labels(labels, spectrum.n), regularized)


def h_score_from_spectrum(spectrum: Spectrum, codes: IntArray, regularized: bool = False) -> float:
    """Returns the H-score for decomposed features and validated labels 0 ... C-1; see `h_score`."""
    counts = np.bincount(codes).astype(np.float64)
    coordinates = spectrum.class_coordinates(codes)
    if not regularized:
        return _unregularized_h_score(coordinates, counts, spectrum.n)
    shrinkage, ridge = ledoit_wolf(spectrum)
    if shrinkage >= 1.0:
        return 0.0
    return float(((counts - residual_energy(spectrum, coordinates, counts, ridge)) / counts).sum() - 1.0)


def _unregularized_h_score(coordinates: FloatArray, counts: FloatArray, n: int) -> float:
    """Returns the sum over classes of |P y|^2 / n_c, P the projection onto the columns of the centred features.

    These columns and the constant vector have the same span as the features and the constant vector, so P = U U' + q q'
    - 1 1' / N, with q the direction of the part of the constant vector outside the features' span, if there is one.
    """
    ones = coordinates.sum(axis=1)
    outside = n - float(ones @ ones)
    energy = (coordinates**2).sum(axis=0)
    if outside > _SPAN_TOLERANCE * n:
        energy = energy + (counts - ones @ coordinates) ** 2 / outside
    return float((energy / counts).sum() - 1.0)


def residual_energy(spectrum: Spectrum, coordinates: FloatArray, counts: FloatArray, ridge: float) -> FloatArray:
    """Returns y'R y for the one-hot labels y of every class, (C,), with R as in `nbt.fit.spectrum`.

    Args:
        spectrum: Spectrum of the features.
        coordinates: U'Y, (k, C).
        counts: Number of samples per class, (C,).
        ridge: Ridge strength, above 0, in the units of sigma.
    """
    unadjusted = counts - (spectrum.values / (spectrum.values + ridge)) @ coordinates**2
    class_sums, total = intercept_terms(coordinates, counts, ridge / (spectrum.values + ridge))
    return np.asarray(unadjusted - class_sums**2 / total)


def ledoit_wolf(spectrum: Spectrum) -> tuple[float, float]:
    """Returns the Ledoit-Wolf shrinkage, 0 ... 1, and the equivalent ridge strength for the scatter matrix.

    The estimate (1 - s) S + s m I of centred features, S = Fc'Fc / N, m = tr(S) / D, equals (1 - s) / N times Fc'Fc +
    ridge I (Ledoit and Wolf 2004; the same values as scikit-learn's).
    """
    n, dim = spectrum.n, spectrum.dim
    squared_lengths = _centred_squared_lengths(spectrum.features)
    trace = float(squared_lengths.sum()) / n
    if trace <= 0.0:
        return 1.0, np.inf
    # The shrinkage depends only on |S|^2 and the sum of the fourth powers of the samples' lengths.
    squared_norm = spectrum.centred_scatter()[1] / n**2
    fourth_moment = float(squared_lengths @ squared_lengths) / n
    spread = squared_norm - trace**2 / dim
    noise = (fourth_moment - squared_norm) / n
    shrinkage = 1.0 if spread <= 0.0 else float(np.clip(noise / spread, 0.0, 1.0))
    ridge = np.inf if shrinkage >= 1.0 else n * shrinkage * trace / dim / (1.0 - shrinkage)
    return shrinkage, ridge


def _centred_squared_lengths(features: FloatArray) -> FloatArray:
    """Returns the squared length of every centred sample, (N,), computed in blocks to save memory."""
    mean = features.mean(axis=0)
    squared_lengths = np.empty(len(features))
    for start in range(0, len(features), _BLOCK_ROWS):
        rows = features[start : start + _BLOCK_ROWS] - mean
        squared_lengths[start : start + _BLOCK_ROWS] = np.einsum("ij,ij->i", rows, rows)
    return squared_lengths
