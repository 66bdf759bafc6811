"""Principal components, in which N-LEEP and GBC model the classes; computed once for both."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum
from nbt.fit.validation import FloatArray

_MAX_DENSE_SIZE = 512


def principal_components(features: FloatArray, components: int) -> FloatArray:
    """Returns the samples' coordinates along the directions of largest variance, float64 (N, k), k <= components.

    Exact, by a partial eigendecomposition of the smaller of scatter (D, D) and kernel (N, N). Directions without
    variance are left out; the sign of each direction makes its largest coordinate positive, so that equal features give
    equal components.

    Args:
        features: float64 (N, D).
        components: Maximum number of components, 1 or more.
    """
    from scipy.linalg import eigh

    centred = features - features.mean(axis=0)
    n, dim = centred.shape
    size = min(n, dim)
    gram = centred.T @ centred if dim <= n else centred @ centred.T
    values, vectors = eigh(gram, subset_by_index=(max(0, size - components), size - 1), driver="evr")
    kept = _above_rounding(values, n, dim)
    coordinates = centred @ vectors[:, kept] if dim <= n else vectors[:, kept] * np.sqrt(values[kept])
    return _order_and_fix_signs(coordinates)


def components_from_spectrum(spectrum: Spectrum, components: int) -> FloatArray:
    """Returns the result of `principal_components`, computed from a decomposition of uncentred features.

    Centring is a rank-1 correction: along the right singular vectors, the scatter of centred features is diag(sigma) -
    z z', z = S U'1 / sqrt(N). A product with it costs O(k), so the Lanczos method finds its leading eigenvectors in a
    small fraction of the time of the decomposition.

    Args:
        spectrum: Spectrum of the features.
        components: Maximum number of components, 1 or more.
    """
    if not len(spectrum.values):
        return np.zeros((spectrum.n, 1))
    scale = np.sqrt(spectrum.values)
    rank_one = scale * spectrum.coordinates(np.ones((spectrum.n, 1)))[:, 0] / np.sqrt(spectrum.n)
    values, vectors = _leading_eigenpairs(spectrum.values, rank_one, components)
    # A direction that centring removes leaves rounding errors relative to its uncentred size.
    kept = _above_rounding(np.append(values, spectrum.values[-1]), spectrum.n, spectrum.dim)[:-1]
    if spectrum.dim <= spectrum.n:
        coordinates = spectrum.features @ (spectrum.basis @ vectors[:, kept])
    else:
        coordinates = spectrum.basis @ (scale[:, None] * vectors[:, kept])
    return _order_and_fix_signs(coordinates - coordinates.mean(axis=0))


def _leading_eigenpairs(diagonal: FloatArray, rank_one: FloatArray, components: int) -> tuple[FloatArray, FloatArray]:
    """Returns the largest eigenvalues of diag(diagonal) - rank_one rank_one', ascending, and their eigenvectors."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    size = len(diagonal)
    if size > max(_MAX_DENSE_SIZE, 4 * components):

        def product(vector: FloatArray) -> FloatArray:
            flat = vector.ravel()
            return np.asarray(diagonal * flat - rank_one * (rank_one @ flat))

        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        try:
            # A fixed start vector with a component in every direction; ARPACK's default is random.
            values, vectors = eigsh(operator, components, which="LA", v0=np.ones(size))
            return np.asarray(values), np.asarray(vectors)
        except ArpackNoConvergence:
            pass
    values, vectors = eigh(
        np.diag(diagonal) - np.outer(rank_one, rank_one),
        subset_by_index=(max(0, size - components), size - 1),
        driver="evr",
    )
    return np.asarray(values), np.asarray(vectors)


def _above_rounding(values: FloatArray, n: int, dim: int) -> FloatArray:
    """Returns a mask of the eigenvalues that are larger than rounding errors."""
    largest = max(float(values.max()), float(np.finfo(np.float64).tiny))
    return np.asarray(values > max(n, dim) * np.finfo(np.float64).eps * largest)


def _order_and_fix_signs(coordinates: FloatArray) -> FloatArray:
    """Sorts components from ascending to descending variance and makes the largest coordinate of each positive."""
    if not coordinates.shape[1]:
        return np.zeros((len(coordinates), 1))
    coordinates = coordinates[:, ::-1]
    largest = np.abs(coordinates).argmax(axis=0)
    return np.asarray(coordinates * np.sign(coordinates[largest, np.arange(coordinates.shape[1])]))
