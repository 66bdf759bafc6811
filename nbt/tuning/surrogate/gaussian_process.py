"""GaussianProcess: regression with one length a coordinate, fitted by its posterior mode. Small, exact, a few ms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Values are of order 1; what they are offset by is left to the data.
_MEAN_PRIOR_VARIANCE = 9.0
_JITTER_STEPS = (1e-9, 1e-7, 1e-5, 1e-3)
_JITTER = 1e-8
_LENGTH_SCALE_LOG_STD = 0.9
_AMPLITUDE_LOG_STD = 1.0
_NOISE_MODE, _NOISE_LOG_STD = 0.1, 1.0
_BOUND_IN_STDS = 5.0
_MAX_ITERATIONS = 60


@dataclass(frozen=True, eq=False)
class Kernel:
    """A squared-exponential kernel, amplitude * exp(-sum_k (x_k - x'_k)^2 / (2 length_k^2)), and independent noise.

    Attributes:
        lengths: (coordinates,), above 0.
        amplitude: Variance of the function, in squared values.
        noise: Variance of a value around the function beside what is known of it.
    """

    lengths: FloatArray
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
        log_params = np.mean([kernel.log_params for kernel in kernels], axis=0)
        return cls.from_log_params(log_params)

    @classmethod
    def from_log_params(cls, log_params: FloatArray) -> Kernel:
        """Reads `log_params` back."""
        return cls(np.exp(log_params[:-2]), float(np.exp(log_params[-2])), float(np.exp(log_params[-1])))

    @property
    def log_params(self) -> FloatArray:
        """The logarithms of lengths, amplitude and noise, (coordinates + 2,)."""
        return np.asarray(np.log(np.r_[self.lengths, self.amplitude, self.noise]))

    @property
    def log_param_stds(self) -> FloatArray:
        """Prior standard deviations of `log_params` around the mode, (coordinates + 2,)."""
        return np.asarray(np.r_[np.full(len(self.lengths), _LENGTH_SCALE_LOG_STD), _AMPLITUDE_LOG_STD, _NOISE_LOG_STD])

    def between(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Returns the covariance of the function at two sets of points, (a, b)."""
        a, b = a / self.lengths, b / self.lengths
        squared_differences = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T
        return np.asarray(self.amplitude * np.exp(-0.5 * np.maximum(squared_differences, 0.0)))


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
    points: FloatArray
    values: FloatArray
    noise: FloatArray
    basis: FloatArray

    @classmethod
    def fit(
        cls,
        points: FloatArray,
        values: FloatArray,
        *,
        noise: FloatArray | float = 0.0,
        around: Kernel | None = None,
        basis: FloatArray | None = None,
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
        some = Kernel.from_log_params(start.log_params[fitted])
        process = cls.given(some, points[:, varies], values, noise=noise, basis=basis)
        squared_differences = (process.points[:, None] - process.points[None]) ** 2
        reach = _BOUND_IN_STDS * some.log_param_stds
        found = minimize(
            process._negative_log_posterior,
            some.log_params,
            args=(some.log_params, squared_differences),
            jac=True,
            method="L-BFGS-B",
            # A step of the line search may be far too long, and such a kernel cannot be computed with.
            bounds=np.stack([some.log_params - reach, some.log_params + reach], axis=1),
            options={"maxiter": _MAX_ITERATIONS},
        )
        log_params = start.log_params.copy()
        log_params[fitted] = found.x
        return cls.given(Kernel.from_log_params(log_params), points, values, noise=noise, basis=basis)

    @classmethod
    def given(
        cls,
        kernel: Kernel,
        points: FloatArray,
        values: FloatArray,
        *,
        noise: FloatArray | float = 0.0,
        basis: FloatArray | None = None,
    ) -> GaussianProcess:
        """Returns the process with a kernel that is known; see `fit`."""
        known = np.broadcast_to(np.asarray(noise, dtype=float), values.shape)
        return cls(kernel, points, values, known, np.zeros((0, len(values))) if basis is None else basis)

    def predict(self, points: FloatArray, basis: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Returns mean and variance of the function at points, (points,) each, without noise.

        Args:
            points: (points, coordinates).
            basis: Of the points, (functions, points).
        """
        from scipy.linalg import solve_triangular

        cross = self._cross_covariance(points, basis)
        spread = solve_triangular(self._cholesky_factor, cross, lower=True, check_finite=False)
        prior = self.kernel.amplitude + _MEAN_PRIOR_VARIANCE + (0.0 if basis is None else (basis**2).sum(0))
        return cross.T @ self._weights, np.maximum(prior - (spread**2).sum(0), 1e-9)

    def mean(self, points: FloatArray, basis: FloatArray | None = None) -> FloatArray:
        """Returns the mean alone, which takes a fraction of the time; see `predict`."""
        return np.asarray(self._cross_covariance(points, basis).T @ self._weights)

    def _cross_covariance(self, points: FloatArray, basis: FloatArray | None) -> FloatArray:
        own = np.zeros((0, len(points))) if basis is None else basis
        return np.asarray(self.kernel.between(self.points, points) + self.basis.T @ own + _MEAN_PRIOR_VARIANCE)

    def leave_one_out_mean(self) -> FloatArray:
        """Returns what each value is predicted to be from all others, (n,)."""
        return self.values - self._weights / np.diag(self._inverse)

    def smoothed(self) -> FloatArray:
        """Returns the values with their known noise taken out, (n,); what is fitted as noise counts as real."""
        return self.values - self.noise * self._weights

    @property
    def basis_weights(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the weights of the basis, (functions,) each."""
        from scipy.linalg import solve_triangular

        spread = solve_triangular(self._cholesky_factor, self.basis.T, lower=True, check_finite=False)
        return self.basis @ self._weights, np.sqrt(np.maximum(1.0 - (spread**2).sum(0), 0.0))

    @property
    def log_likelihood(self) -> float:
        """Log density of the values, without the constant."""
        return float(-0.5 * self.values @ self._weights - np.log(np.diag(self._cholesky_factor)).sum())

    @cached_property
    def _cholesky_factor(self) -> FloatArray:
        covariance = self.kernel.between(self.points, self.points) + self.basis.T @ self.basis + _MEAN_PRIOR_VARIANCE
        covariance[np.diag_indices_from(covariance)] += self.noise + self.kernel.noise + _JITTER
        return _cholesky(covariance)

    @cached_property
    def _weights(self) -> FloatArray:
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self._cholesky_factor, True), self.values, check_finite=False))

    @cached_property
    def _inverse(self) -> FloatArray:
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self._cholesky_factor, True), np.eye(len(self.values)), check_finite=False))

    def _negative_log_posterior(
        self, log_params: FloatArray, mode: FloatArray, squared_differences: FloatArray
    ) -> tuple[float, FloatArray]:
        """Returns minus the log posterior density of a kernel, and its gradient by the kernel's logarithms."""
        kernel = Kernel.from_log_params(log_params)
        process = GaussianProcess(kernel, self.points, self.values, self.noise, self.basis)
        slope = 0.5 * (process._inverse - np.outer(process._weights, process._weights))
        by_kernel = slope * kernel.between(self.points, self.points)
        gradient = np.r_[
            np.einsum("ij,ijk->k", by_kernel, squared_differences) / kernel.lengths**2,
            by_kernel.sum(),
            np.trace(slope) * kernel.noise,
        ]
        scaled_deviations = (log_params - mode) / kernel.log_param_stds
        return -process.log_likelihood + 0.5 * float(
            scaled_deviations @ scaled_deviations
        ), gradient + scaled_deviations / kernel.log_param_stds


def _cholesky(covariance: FloatArray) -> FloatArray:
    """Returns the lower factor; rounding may need more jitter where values are almost exact copies of each other."""
    from scipy.linalg import LinAlgError, cholesky

    scale, diagonal = float(np.diag(covariance).mean()), np.diag_indices_from(covariance)
    for jitter in _JITTER_STEPS:
        try:
            return np.asarray(cholesky(covariance, lower=True, check_finite=False))
        except LinAlgError:
            covariance[diagonal] += jitter * scale
    return np.asarray(cholesky(covariance, lower=True, check_finite=False))
