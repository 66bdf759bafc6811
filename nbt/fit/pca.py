"""Principal components: the few directions in which N-LEEP and GBC model the classes; computed once for both."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum
from nbt.fit.validation import FloatArray

_MAX_DENSE_SIZE = 512


def principal_components(features: FloatArray, components: int) -> FloatArray:
    """Returns the coordinates of the samples along the directions of most variance, float64 (N, k), k <= components.

    Exact, from an eigen-decomposition of the smaller of scatter (D, D) and kernel (N, N), of which only the wanted
    part is computed. Directions without variance are left out; the sign of a direction is such that its largest
    coordinate is positive, so that equal features give equal components.

    Args:
        features: float64 (N, D).
        components: 1 or more.
    """
    from scipy.linalg import eigh

    centred = features - features.mean(axis=0)
    n, dim = centred.shape
    size = min(n, dim)
    gram = centred.T @ centred if dim <= n else centred @ centred.T
    values, vectors = eigh(gram, subset_by_index=(max(0, size - components), size - 1), driver="evr")
    kept = _above_rounding(values, n, dim)
    coordinates = centred @ vectors[:, kept] if dim <= n else vectors[:, kept] * np.sqrt(values[kept])
    return _fix_signs(coordinates)


def components_from_spectrum(spectrum: Spectrum, components: int) -> FloatArray:
    """Returns what `principal_components` does, from a decomposition of features that were not centred.

    Centring takes one direction away: along the right singular vectors, the scatter of centred features is
    diag(sigma) - z z', z = S U'1 / sqrt(N). A product with it costs O(k), so Lanczos' method finds its leading part in
    a small share of what the decomposition took.

    Args:
        spectrum: Of the features.
        components: 1 or more.
    """
    if not len(spectrum.values):
        return np.zeros((spectrum.n, 1))
    scale = np.sqrt(spectrum.values)
    away = scale * spectrum.coordinates(np.ones((spectrum.n, 1)))[:, 0] / np.sqrt(spectrum.n)
    values, vectors = _leading_eigenpairs(spectrum.values, away, components)
    # What centring leaves of a constant direction is rounding of the size of the direction before.
    kept = _above_rounding(np.append(values, spectrum.values[-1]), spectrum.n, spectrum.dim)[:-1]
    if spectrum.dim <= spectrum.n:
        coordinates = spectrum.features @ (spectrum.basis @ vectors[:, kept])
    else:
        coordinates = spectrum.basis @ (scale[:, None] * vectors[:, kept])
    return _fix_signs(coordinates - coordinates.mean(axis=0))


def _leading_eigenpairs(diagonal: FloatArray, away: FloatArray, components: int) -> tuple[FloatArray, FloatArray]:
    """Returns the largest eigenvalues, ascending, and their vectors of diag(diagonal) - away away'."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    size = len(diagonal)
    if size > max(_MAX_DENSE_SIZE, 4 * components):

        def product(vector: FloatArray) -> FloatArray:
            flat = vector.ravel()
            return np.asarray(diagonal * flat - away * (away @ flat))

        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        try:
            # A start of its own would be random; this one has a share of every direction.
            values, vectors = eigsh(operator, components, which="LA", v0=np.ones(size))
            return np.asarray(values), np.asarray(vectors)
        except ArpackNoConvergence:
            pass
    values, vectors = eigh(
        np.diag(diagonal) - np.outer(away, away), subset_by_index=(max(0, size - components), size - 1), driver="evr"
    )
    return np.asarray(values), np.asarray(vectors)


def _above_rounding(values: FloatArray, n: int, dim: int) -> FloatArray:
    """Returns which of some eigenvalues are more than rounding."""
    largest = max(float(values.max()), float(np.finfo(np.float64).tiny))
    return np.asarray(values > max(n, dim) * np.finfo(np.float64).eps * largest)


def _fix_signs(coordinates: FloatArray) -> FloatArray:
    """Returns coordinates that come by ascending variance by descending, each with the sign of its definition."""
    if not coordinates.shape[1]:
        return np.zeros((len(coordinates), 1))
    coordinates = coordinates[:, ::-1]
    largest = np.abs(coordinates).argmax(axis=0)
    return np.asarray(coordinates * np.sign(coordinates[largest, np.arange(coordinates.shape[1])]))
