"""The spectrum of a feature matrix: one decomposition, shared by LogME, the H-scores and the ridge probe.

These measures depend on the features F = U S V' only through sigma = s^2 and the coordinates U'Y of the labels. This
includes centred features: a ridge regression of targets Y on F with an unpenalised intercept has the residuals

    R Y,  R = M - m m' / (1'm),  M = I - U g U',  g = sigma / (sigma + ridge),  m = M 1,

(the bordered system of kernel ridge regression with a bias), so that I - 11'/N - R is the hat matrix of centred
features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_features


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values and singular vectors of a feature matrix that is not centred.

    Attributes:
        features: F, float64 (N, D).
        values: sigma, the squares of the singular values above the rank threshold, (k,), ascending.
        basis: The singular vectors: V, (D, k), if D <= N; else U, (N, k).
    """

    features: FloatArray
    values: FloatArray
    basis: FloatArray
    _class_coordinates: dict[bytes, FloatArray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, features: ArrayLike) -> Spectrum:
        """Decomposes features by the smaller of the Gram matrix (D, D) and the kernel (N, N).

        Cost: O(N D min(N, D)).

        Args:
            features: (N, D).

        Raises:
            ValueError: The features are not a finite matrix.
        """
        matrix = check_features(features)
        n, dim = matrix.shape
        gram = matrix.T @ matrix if dim <= n else matrix @ matrix.T
        from scipy.linalg import eigh  # the import takes half a second, and stored profiles do not need it

        # "evd" is not faster, and takes a workspace of twice the matrix.
        values, basis = eigh(gram, overwrite_a=True, check_finite=False, driver="evr")
        kept = values > max(n, dim) * np.finfo(np.float64).eps * max(values[-1], 0.0)
        return cls(matrix, values[kept], basis if kept.all() else basis[:, kept])

    @property
    def n(self) -> int:
        """Number of samples N."""
        return len(self.features)

    @property
    def dim(self) -> int:
        """Number of features D."""
        return int(self.features.shape[1])

    def left_singular_vectors(self, rows: slice) -> FloatArray:
        """Returns some rows of U, (n, k)."""
        if self.dim > self.n:
            return self.basis[rows]
        left: FloatArray = self.features[rows] @ self.basis
        left /= np.sqrt(self.values)
        return left

    def coordinates(self, targets: FloatArray) -> FloatArray:
        """Returns U'Y, (k, C), for targets Y, (N, C)."""
        if self.dim > self.n:
            return self.basis.T @ targets
        return np.asarray((self.basis.T @ (self.features.T @ targets)) / np.sqrt(self.values)[:, None])

    def class_coordinates(self, codes: IntArray) -> FloatArray:
        """Returns U'Y, (k, C), for the one-hot matrix of labels 0 ... C-1; cached for later measures."""
        key = codes.tobytes()
        if key not in self._class_coordinates:
            self._class_coordinates[key] = self.coordinates(one_hot(codes))
        return self._class_coordinates[key]

    def centred_scatter(self) -> tuple[float, float]:
        """Returns the trace and the squared Frobenius norm of Fc'Fc, Fc the centred features.

        Along the right singular vectors it is diag(sigma) - a a', a = S U'1 / sqrt(N). The norm is summed in a form
        without cancellation for means far from zero.
        """
        squares = self.values * self.coordinates(np.ones((self.n, 1)))[:, 0] ** 2 / self.n
        diagonal = self.values - squares
        off_diagonal = float(squares[1:] @ np.cumsum(squares)[:-1])
        return max(float(diagonal.sum()), 0.0), float(diagonal @ diagonal) + 2.0 * off_diagonal


def intercept_terms(coordinates: FloatArray, counts: FloatArray, factors: FloatArray) -> tuple[FloatArray, float]:
    """Returns 1'B Y, (C,), and 1'B 1 for one-hot labels Y, where B = I - U U' + U diag(factors) U'.

    For B = M, their ratio is the intercept of each class. The parts outside and inside the span of F are summed
    separately, which is exact even for a large mean of F.

    Args:
        coordinates: U'Y, (k, C).
        counts: Number of samples per class, (C,).
        factors: Eigenvalues of B in the span of F, (k,): ridge / (sigma + ridge) for B = M, its square for B = M^2.
    """
    ones = coordinates.sum(axis=1)
    class_sums: FloatArray = counts - ones @ coordinates + (factors * ones) @ coordinates
    return class_sums, float(class_sums.sum())


def one_hot(codes: IntArray) -> FloatArray:
    """Returns one column per class, 1 for its samples, float64 (N, C)."""
    return np.eye(int(codes.max()) + 1)[codes]
