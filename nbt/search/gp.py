"""GaussianProcess: regression with one length a coordinate, fitted by its posterior mode. Small, exact, a few ms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Values are of order 1; what they are offset by is left to the data.
_OFFSET_VARIANCE = 9.0
_MORE_JITTER = (1e-9, 1e-7, 1e-5, 1e-3)
_JITTER = 1e-8
_LENGTH_SPREAD = 0.9
_AMPLITUDE_SPREAD = 1.0
_NOISE_MODE, _NOISE_SPREAD = 0.1, 1.0
_REACH = 5.0
_ROUNDS = 60


@dataclass(frozen=True, eq=False)
class Kernel:
    """A squared-exponential kernel, amplitude * exp(-sum_k (x_k - x'_k)^2 / (2 length_k^2)), and independent noise.

    Attributes:
        lengths: (coordinates,), above 0.
        amplitude: Variance of the function, in squared values.
        noise: Variance of a value around the function beside what is known of it.
    """

    lengths: Vector
    amplitude: float
    noise: float

    @classmethod
    def prior(cls, coordinates: int, *, varied: int | None = None) -> Kernel:
        """Returns what is expected before any value is seen, for coordinates between 0 and 1.

        The lengths grow with the square root of the number of coordinates, so that the distance of two random
        points in lengths does not depend on it: Hvarfner, Hellsten, Nardi 2024, arXiv 2402.02229.

        Args:
            coordinates: Of a point.
            varied: How many of them two random points differ in; all when None.
        """
        return cls(np.full(coordinates, 0.7 * np.sqrt(varied or coordinates)), 1.0, _NOISE_MODE)

    @classmethod
    def mean(cls, kernels: list[Kernel]) -> Kernel:
        """Returns the geometric mean of at least one kernel."""
        logs = np.mean([kernel.logs for kernel in kernels], axis=0)
        return cls.from_logs(logs)

    @classmethod
    def from_logs(cls, logs: Vector) -> Kernel:
        """Reads `logs` back."""
        return cls(np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])))

    @property
    def logs(self) -> Vector:
        """The logarithms of lengths, amplitude and noise, (coordinates + 2,)."""
        return np.asarray(np.log(np.r_[self.lengths, self.amplitude, self.noise]))

    @property
    def log_spreads(self) -> Vector:
        """Prior standard deviations of `logs` around the mode, (coordinates + 2,)."""
        return np.asarray(np.r_[np.full(len(self.lengths), _LENGTH_SPREAD), _AMPLITUDE_SPREAD, _NOISE_SPREAD])

    def between(self, a: Vector, b: Vector) -> Vector:
        """Returns the covariance of the function at two sets of points, (a, b)."""
        a, b = a / self.lengths, b / self.lengths
        gaps = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T
        return np.asarray(self.amplitude * np.exp(-0.5 * np.maximum(gaps, 0.0)))


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process given values at points; see Rasmussen and Williams 2006, chapters 2 and 5.

    Attributes:
        kernel: Of the function.
        points: (n, coordinates).
        values: (n,).
        noise: Known variance of each value, (n,).
        basis: Functions beside the process, whose weights are normal around 0 with variance 1, at the points:
            (functions, n).
    """

    kernel: Kernel
    points: Vector
    values: Vector
    noise: Vector
    basis: Vector

    @classmethod
    def fit(
        cls,
        points: Vector,
        values: Vector,
        *,
        noise: Vector | float = 0.0,
        around: Kernel | None = None,
        basis: Vector | None = None,
    ) -> GaussianProcess:
        """Returns the process with the kernel that is most likely given the values.

        Args:
            points: (n, coordinates), n at least 1; coordinates about 0 ... 1.
            values: (n,), of order 1.
            noise: Known variance of each value; what is unknown of it is fitted.
            around: Where the prior of the kernel has its mode; `Kernel.prior` when None.
            basis: See the class; none when None.
        """
        from scipy.optimize import minimize

        start = around or Kernel.prior(points.shape[1])
        # Nothing is learned along coordinates that do not vary.
        varies = np.ptp(points, axis=0) > 0
        fitted = np.r_[varies, True, True]
        some = Kernel.from_logs(start.logs[fitted])
        process = cls.given(some, points[:, varies], values, noise=noise, basis=basis)
        gaps = (process.points[:, None] - process.points[None]) ** 2
        reach = _REACH * some.log_spreads
        found = minimize(
            process._loss,
            some.logs,
            args=(some.logs, gaps),
            jac=True,
            method="L-BFGS-B",
            # A step of the line search may be far too long, and such a kernel cannot be computed with.
            bounds=np.stack([some.logs - reach, some.logs + reach], axis=1),
            options={"maxiter": _ROUNDS},
        )
        logs = start.logs.copy()
        logs[fitted] = found.x
        return cls.given(Kernel.from_logs(logs), points, values, noise=noise, basis=basis)

    @classmethod
    def given(
        cls,
        kernel: Kernel,
        points: Vector,
        values: Vector,
        *,
        noise: Vector | float = 0.0,
        basis: Vector | None = None,
    ) -> GaussianProcess:
        """Returns the process with a kernel that is known; see `fit`."""
        known = np.broadcast_to(np.asarray(noise, dtype=float), values.shape)
        return cls(kernel, points, values, known, np.zeros((0, len(values))) if basis is None else basis)

    def predict(self, points: Vector, basis: Vector | None = None) -> tuple[Vector, Vector]:
        """Returns mean and variance of the function at points, (points,) each, without noise.

        Args:
            points: (points, coordinates).
            basis: Of the points, (functions, points).
        """
        from scipy.linalg import solve_triangular

        cross = self._cross(points, basis)
        spread = solve_triangular(self._factor, cross, lower=True, check_finite=False)
        prior = self.kernel.amplitude + _OFFSET_VARIANCE + (0.0 if basis is None else (basis**2).sum(0))
        return cross.T @ self._weights, np.maximum(prior - (spread**2).sum(0), 1e-9)

    def mean(self, points: Vector, basis: Vector | None = None) -> Vector:
        """Returns the mean alone, which takes a fraction of the time; see `predict`."""
        return np.asarray(self._cross(points, basis).T @ self._weights)

    def _cross(self, points: Vector, basis: Vector | None) -> Vector:
        own = np.zeros((0, len(points))) if basis is None else basis
        return np.asarray(self.kernel.between(self.points, points) + self.basis.T @ own + _OFFSET_VARIANCE)

    def left_out(self) -> Vector:
        """Returns what each value is predicted to be from all others, (n,)."""
        return self.values - self._weights / np.diag(self._inverse)

    def smoothed(self) -> Vector:
        """Returns the values with their known noise taken out, (n,); what is fitted as noise counts as real."""
        return self.values - self.noise * self._weights

    @property
    def basis_weights(self) -> tuple[Vector, Vector]:
        """Mean and standard deviation of the weights of the basis, (functions,) each."""
        from scipy.linalg import solve_triangular

        spread = solve_triangular(self._factor, self.basis.T, lower=True, check_finite=False)
        return self.basis @ self._weights, np.sqrt(np.maximum(1.0 - (spread**2).sum(0), 0.0))

    @property
    def log_likelihood(self) -> float:
        """Log density of the values, without the constant."""
        return float(-0.5 * self.values @ self._weights - np.log(np.diag(self._factor)).sum())

    @cached_property
    def _factor(self) -> Vector:
        covariance = self.kernel.between(self.points, self.points) + self.basis.T @ self.basis + _OFFSET_VARIANCE
        covariance[np.diag_indices_from(covariance)] += self.noise + self.kernel.noise + _JITTER
        return _cholesky(covariance)

    @cached_property
    def _weights(self) -> Vector:
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self._factor, True), self.values, check_finite=False))

    @cached_property
    def _inverse(self) -> Vector:
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self._factor, True), np.eye(len(self.values)), check_finite=False))

    def _loss(self, logs: Vector, mode: Vector, gaps: Vector) -> tuple[float, Vector]:
        """Returns minus the log posterior density of a kernel, and its gradient by the kernel's logarithms."""
        kernel = Kernel.from_logs(logs)
        process = GaussianProcess(kernel, self.points, self.values, self.noise, self.basis)
        slope = 0.5 * (process._inverse - np.outer(process._weights, process._weights))
        by_kernel = slope * kernel.between(self.points, self.points)
        gradient = np.r_[
            np.einsum("ij,ijk->k", by_kernel, gaps) / kernel.lengths**2, by_kernel.sum(), np.trace(slope) * kernel.noise
        ]
        pulls = (logs - mode) / kernel.log_spreads
        return -process.log_likelihood + 0.5 * float(pulls @ pulls), gradient + pulls / kernel.log_spreads


def _cholesky(covariance: Vector) -> Vector:
    """Returns the lower factor; rounding may need more jitter where values are almost exact copies of each other."""
    from scipy.linalg import LinAlgError, cholesky

    scale, diagonal = float(np.diag(covariance).mean()), np.diag_indices_from(covariance)
    for jitter in _MORE_JITTER:
        try:
            return np.asarray(cholesky(covariance, lower=True, check_finite=False))
        except LinAlgError:
            covariance[diagonal] += jitter * scale
    return np.asarray(cholesky(covariance, lower=True, check_finite=False))
