"""H-score: how much of the features' variance separates the classes (Bao et al. 2019; Ibrahim et al. 2021)."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum, intercept
from nbt.fit.validation import ArrayLike, FloatArray, Integers, check_labels

_SPAN_TOLERANCE = 1e-9
_BLOCK_ROWS = 512


def h_score(features: ArrayLike, labels: ArrayLike, regularized: bool = False) -> float:
    """Returns the H-score, tr(pinv(cov F) cov(E[F|y])), or its regularised form.

    Between 0 and the smaller of C - 1 and D; higher is better. The plain form is near its upper end whenever N is not
    much larger than D, whatever the features are; the regularised one replaces cov F by the Ledoit-Wolf estimate,
    (1 - s) cov F + s tr(cov F)/D I, and multiplies by 1 - s (Ibrahim et al. 2021, arXiv 2110.06893).

    Cost: one decomposition, O(N D min(N, D)), and O(min(N, D) C).

    Args:
        features: (N, D).
        labels: Integers (N,).
        regularized: Which form.

    Raises:
        ValueError: The features are no finite matrix, the labels do not match, or have fewer than two classes.
    """
    spectrum = Spectrum.of(features)
    return h_score_from_spectrum(spectrum, check_labels(labels, spectrum.n), regularized)


def h_score_from_spectrum(spectrum: Spectrum, codes: Integers, regularized: bool = False) -> float:
    """Returns the H-score of features that are decomposed and labels 0 ... C-1 that are checked; see `h_score`."""
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

    These columns and the constant span what the features and the constant span, so P = U U' + q q' - 1 1' / N with q
    the direction of the constant that the features do not reach, if there is one.
    """
    ones = coordinates.sum(axis=1)
    unreached = n - float(ones @ ones)
    energy = (coordinates**2).sum(axis=0)
    if unreached > _SPAN_TOLERANCE * n:
        energy = energy + (counts - ones @ coordinates) ** 2 / unreached
    return float((energy / counts).sum() - 1.0)


def residual_energy(spectrum: Spectrum, coordinates: FloatArray, counts: FloatArray, ridge: float) -> FloatArray:
    """Returns y'R y of the one-hot labels y of every class, (C,), with R as in `nbt.fit.spectrum`.

    Args:
        spectrum: Of the features.
        coordinates: U'Y, (k, C).
        counts: Samples of each class, (C,).
        ridge: Strength, above 0, in the units of sigma.
    """
    own = counts - (spectrum.values / (spectrum.values + ridge)) @ coordinates**2
    across, total = intercept(coordinates, counts, ridge / (spectrum.values + ridge))
    return np.asarray(own - across**2 / total)


def ledoit_wolf(spectrum: Spectrum) -> tuple[float, float]:
    """Returns the shrinkage of the Ledoit-Wolf estimate, 0 ... 1, and the ridge that it means for the scatter matrix.

    The estimate (1 - s) S + s m I of centred features, S = Fc'Fc / N, m = tr(S) / D, is (1 - s) / N times
    Fc'Fc + ridge I (Ledoit, Wolf 2004; the same numbers as scikit-learn's).
    """
    n, dim = spectrum.n, spectrum.dim
    lengths = _centred_lengths(spectrum.features)
    trace = float(lengths.sum()) / n
    if trace <= 0.0:
        return 1.0, np.inf
    # |S|^2 and the sum of fourth powers of the samples' lengths are all that it needs.
    squared = spectrum.centred_scatter()[1] / n**2
    fourth = float(lengths @ lengths) / n
    spread = squared - trace**2 / dim
    noise = (fourth - squared) / n
    shrinkage = 1.0 if spread <= 0.0 else float(np.clip(noise / spread, 0.0, 1.0))
    ridge = np.inf if shrinkage >= 1.0 else n * shrinkage * trace / dim / (1.0 - shrinkage)
    return shrinkage, ridge


def _centred_lengths(features: FloatArray) -> FloatArray:
    """Returns the squared length of every centred sample, (N,), without a centred copy of them all."""
    mean = features.mean(axis=0)
    lengths = np.empty(len(features))
    for start in range(0, len(features), _BLOCK_ROWS):
        rows = features[start : start + _BLOCK_ROWS] - mean
        lengths[start : start + _BLOCK_ROWS] = np.einsum("ij,ij->i", rows, rows)
    return lengths
