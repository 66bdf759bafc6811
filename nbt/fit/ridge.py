"""Ridge probe: the accuracy of a linear classifier on frozen features, computed in closed form."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum, intercept_terms, one_hot
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_labels

_BLOCK_ROWS = 1024
STRENGTHS = tuple(10.0**power for power in range(-7, 2))
"""Candidate ridge strengths, as shares of the total scatter of the centred features."""


def ridge_probe_accuracy(features: ArrayLike, labels: ArrayLike) -> float:
    """Returns the leave-one-out accuracy of a ridge regression of the one-hot labels on frozen features.

    The range is 0 to 1; higher is better; the standard error is sqrt(p (1 - p) / N). The predicted class is the one
    with the highest score. The intercept is not penalised. The penalty is selected from `STRENGTHS` by generalised
    cross-validation (Golub, Heath and Wahba 1979), which minimises the squared error: the accuracy is not used for
    selection, so it remains nearly unbiased. The leave-one-out residual has a closed form: a sample's residual divided
    by its diagonal element of the residual operator.

    The only sample of a class counts as misclassified, because its class cannot be predicted without it.

    Cost: one decomposition, O(N D min(N, D)), and O(N min(N, D) C).

    Args:
        features: (N, D).
        labels: Integers (N,).

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, or there are fewer than two
            classes.
    """
    spectrum = Spectrum.of(features)
    return ridge_accuracy_from_spectrum(spectrum, check_labels(labels, spectrum.n))


def ridge_accuracy_from_spectrum(spectrum: Spectrum, codes: IntArray) -> float:
    """Returns the accuracy for decomposed features and validated labels; see `ridge_probe_accuracy`."""
    return float(np.mean(ridge_predictions(spectrum, codes) == codes))


def ridge_predictions(spectrum: Spectrum, codes: IntArray) -> IntArray:
    """Returns the class that a regression on all other samples predicts for every sample, (N,)."""
    targets = one_hot(codes)
    coordinates = spectrum.class_coordinates(codes)
    counts = targets.sum(axis=0)
    ridge = choose_ridge_strength(spectrum, codes)
    if not ridge:
        scores = np.broadcast_to(counts, targets.shape) - targets
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    filter_factors = spectrum.values / (spectrum.values + ridge)
    ones = coordinates.sum(axis=1)
    class_sums, total = intercept_terms(coordinates, counts, ridge / (spectrum.values + ridge))
    intercepts = class_sums / total
    predicted = []
    for start in range(0, spectrum.n, _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, spectrum.n))
        left = spectrum.left_singular_vectors(rows)
        constant_residuals = 1.0 - left @ (filter_factors * ones)
        residuals = (
            targets[rows] - left @ (filter_factors[:, None] * coordinates) - np.outer(constant_residuals, intercepts)
        )
        diagonal = 1.0 - np.square(left) @ filter_factors - constant_residuals**2 / total
        leave_one_out = targets[rows] - residuals / np.maximum(diagonal, np.finfo(np.float64).eps)[:, None]
        predicted.append(leave_one_out.argmax(axis=1))
    return np.concatenate(predicted)


def ridge_head(spectrum: Spectrum, codes: IntArray) -> tuple[FloatArray, FloatArray]:
    """Returns weights, (C, D), and intercepts, (C,), of the ridge regression of the one-hot labels on all samples.

    Args:
        spectrum: The decomposed features.
        codes: Labels 0 ... C-1, (N,).

    Raises:
        ValueError: The features are constant.
    """
    ridge = choose_ridge_strength(spectrum, codes)
    if not ridge:
        raise ValueError("constant features have no regression")
    coordinates, counts = spectrum.class_coordinates(codes), np.bincount(codes).astype(np.float64)
    class_sums, total = intercept_terms(coordinates, counts, ridge / (spectrum.values + ridge))
    intercepts = class_sums / total
    residuals = coordinates - np.outer(coordinates.sum(axis=1), intercepts)
    scaled = residuals / (spectrum.values + ridge)[:, None]
    if spectrum.dim > spectrum.n:
        return (spectrum.features.T @ (spectrum.basis @ scaled)).T, intercepts
    return (spectrum.basis @ (np.sqrt(spectrum.values)[:, None] * scaled)).T, intercepts


def choose_ridge_strength(spectrum: Spectrum, codes: IntArray) -> float:
    """Returns the strength with the lowest generalised cross-validation error, in the units of sigma.

    The result is 0 for constant features, for which there is no regression.
    """
    scatter, _ = spectrum.centred_scatter()
    if scatter <= spectrum.n * np.finfo(np.float64).eps * float(spectrum.values.sum()):
        return 0.0
    coordinates, counts = spectrum.class_coordinates(codes), np.bincount(codes).astype(np.float64)
    strengths = [share * scatter for share in STRENGTHS]
    return min(strengths, key=lambda ridge: _gcv(spectrum, coordinates, counts, ridge))


def _gcv(spectrum: Spectrum, coordinates: FloatArray, counts: FloatArray, ridge: float) -> float:
    """Returns |R Y|^2 / tr(R)^2, with R as in `nbt.fit.spectrum`, computed from the spectrum alone."""
    factors = ridge / (spectrum.values + ridge)  # M = I - U U' + U diag(factors) U'
    class_sums, total = intercept_terms(coordinates, counts, factors)  # m'Y, 1'm
    cross_terms, squared_norm = intercept_terms(coordinates, counts, factors**2)  # m'MY, |m|^2
    intercepts = class_sums / total
    energy = coordinates**2
    squares = np.maximum(counts - energy.sum(axis=0), 0.0) + factors**2 @ energy  # |MY|^2
    error = float((squares - 2.0 * intercepts * cross_terms + squared_norm * intercepts**2).sum())
    trace = spectrum.n - len(factors) + float(factors.sum()) - squared_norm / total
    return float(error / max(trace, float(np.finfo(np.float64).eps)) ** 2)
