"""Exact Gaussian process regression with one length scale per coordinate, fitted by the mode of the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Prior variance of the constant mean; large, so that the values, which are of order 1, determine it.
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
        length_scales: Length scale of each coordinate, above 0, (coordinates,).
        amplitude: Variance of the function, in squared units of the values.
        noise: Variance of a value around the function, in addition to its known noise.
    """

    length_scales: FloatArray
    amplitude: float
    noise: float

    @classmethod
    def default(cls, num_coordinates: int, *, num_varied: int | None = None) -> Kernel:
        """Returns the mode of the kernel's prior for coordinates between 0 and 1.

        The length scales grow with the square root of the number of coordinates, so that the scaled distance of two
        random points does not depend on it (Hvarfner, Hellsten, Nardi 2024, arXiv 2402.02229).

        Args:
            num_coordinates: Number of coordinates of a point.
            num_varied: Number of coordinates in which two random points differ; all if None.
        """
        return cls(np.full(num_coordinates, 0.7 * np.sqrt(num_varied or num_coordinates)), 1.0, _NOISE_MODE)

    def to_array(self) -> FloatArray:
        """Returns the length scales, the amplitude and the noise, (coordinates + 2,)."""
        return np.asarray(np.r_[self.length_scales, self.amplitude, self.noise])

    @classmethod
    def mean(cls, kernels: list[Kernel]) -> Kernel:
        """Returns the geometric mean of one or more kernels."""
        log_params = np.mean([kernel.log_params for kernel in kernels], axis=0)
        return cls.from_log_params(log_params)

    @classmethod
    def from_log_params(cls, log_params: FloatArray) -> Kernel:
        """Creates a kernel from its `log_params`."""
        return cls(np.exp(log_params[:-2]), float(np.exp(log_params[-2])), float(np.exp(log_params[-1])))

    @property
    def log_params(self) -> FloatArray:
        """Natural logarithms of the length scales, the amplitude and the noise, (coordinates + 2,)."""
        return np.asarray(np.log(self.to_array()))

    @property
    def log_param_stds(self) -> FloatArray:
        """Prior standard deviations of `log_params` around the mode, (coordinates + 2,)."""
        length_scale_stds = np.full(len(self.length_scales), _LENGTH_SCALE_LOG_STD)
        return np.asarray(np.r_[length_scale_stds, _AMPLITUDE_LOG_STD, _NOISE_LOG_STD])

    def covariance_between(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Returns the covariance of the function at two sets of points, (len(a), len(b)).

        Args:
            a: Points, (len(a), coordinates).
            b: Points, (len(b), coordinates).
        """
        a, b = a / self.length_scales, b / self.length_scales
        # In place: a proposal computes several matrices of hundreds of points.
        result = np.asarray((a**2).sum(1)[:, None] + (b**2).sum(1)[None])
        result -= 2.0 * a @ b.T
        np.maximum(result, 0.0, out=result)
        result *= -0.5
        np.exp(result, out=result)
        result *= self.amplitude
        return result


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process conditioned on values at points (Rasmussen and Williams 2006, chapters 2 and 5).

    Attributes:
        kernel: Kernel of the function.
        points: Observed points, (n, coordinates).
        values: Observed values, (n,).
        noise: Known noise variance of each value, (n,).
        basis: Values of additional basis functions at the points, (functions, n); their weights have a standard normal
            prior.
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
        prior_mode: Kernel | None = None,
        basis: FloatArray | None = None,
    ) -> GaussianProcess:
        """Fits the kernel to the values by the mode of its posterior.

        Args:
            points: Observed points, (n, coordinates) with n at least 1; coordinates of about 0 ... 1.
            values: Observed values of order 1, (n,).
            noise: Known noise variance of each value; additional noise is fitted.
            prior_mode: Mode of the kernel's prior; `Kernel.default` if None.
            basis: Values of additional basis functions at the points, (functions, n); no functions if None.
        """
        from scipy.optimize import minimize

        mode = prior_mode or Kernel.default(points.shape[1])
        # Length scales of constant coordinates cannot be fitted and keep their prior mode.
        varies = np.ptp(points, axis=0) > 0
        fitted = np.r_[varies, True, True]
        start = Kernel.from_log_params(mode.log_params[fitted])
        process = cls.with_kernel(start, points[:, varies], values, noise=noise, basis=basis)
        squared_differences = (process.points[:, None] - process.points[None]) ** 2
        bound = _BOUND_IN_STDS * start.log_param_stds
        solution = minimize(
            process._negative_log_posterior,
            start.log_params,
            args=(start.log_params, squared_differences),
            jac=True,
            method="L-BFGS-B",
            # Bounds keep long steps of the line search away from kernels that are numerically singular.
            bounds=np.stack([start.log_params - bound, start.log_params + bound], axis=1),
            options={"maxiter": _MAX_ITERATIONS},
        )
        log_params = mode.log_params.copy()
        log_params[fitted] = solution.x
        return cls.with_kernel(Kernel.from_log_params(log_params), points, values, noise=noise, basis=basis)

    @classmethod
    def with_kernel(
        cls,
        kernel: Kernel,
        points: FloatArray,
        values: FloatArray,
        *,
        noise: FloatArray | float = 0.0,
        basis: FloatArray | None = None,
    ) -> GaussianProcess:
        """Creates a process with a given kernel; the other arguments are those of `fit`."""
        known_noise = np.broadcast_to(np.asarray(noise, dtype=float), values.shape)
        return cls(kernel, points, values, known_noise, np.zeros((0, len(values))) if basis is None else basis)

    def predict(self, points: FloatArray, basis: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Returns the posterior mean and variance of the function, without noise, (points,) each.

        Args:
            points: New points, (points, coordinates).
            basis: Values of the basis functions at the new points, (functions, points); None without basis functions.
        """
        from scipy.linalg import solve_triangular

        cross = self._cross_covariance(points, basis)
        solved = solve_triangular(self._cholesky_factor, cross, lower=True, check_finite=False)
        prior_variance = self.kernel.amplitude + _MEAN_PRIOR_VARIANCE + (0.0 if basis is None else (basis**2).sum(0))
        return cross.T @ self._weights, np.maximum(prior_variance - (solved**2).sum(0), 1e-9)

    def difference(self, points: FloatArray, others: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the posterior mean and variance of the difference of the function between pairs of points, (pairs,).

        Args:
            points: Points, (pairs, coordinates).
            others: The points whose values are subtracted, (pairs, coordinates); their basis functions are the same.
        """
        from scipy.linalg import solve_triangular

        change = self._cross_covariance(points, None) - self._cross_covariance(others, None)
        solved = solve_triangular(self._cholesky_factor, change, lower=True, check_finite=False)
        between = self.kernel.amplitude * np.exp(-0.5 * (((points - others) / self.kernel.length_scales) ** 2).sum(1))
        variance = 2.0 * (self.kernel.amplitude - between) - (solved**2).sum(0)
        return change.T @ self._weights, np.maximum(variance, 0.0)

    def mean(self, points: FloatArray, basis: FloatArray | None = None) -> FloatArray:
        """Returns the posterior mean only, which is much faster than `predict`; the arguments are the same."""
        return np.asarray(self._cross_covariance(points, basis).T @ self._weights)

    def _cross_covariance(self, points: FloatArray, basis: FloatArray | None) -> FloatArray:
        basis = np.zeros((0, len(points))) if basis is None else basis
        covariance = self.kernel.covariance_between(self.points, points)
        covariance += self.basis.T @ basis
        covariance += _MEAN_PRIOR_VARIANCE
        return covariance

    def leave_one_out_mean(self) -> FloatArray:
        """Returns the prediction of each value from all others, (n,)."""
        return self.values - self._weights / np.diag(self._inverse)

    def denoised_values(self) -> FloatArray:
        """Returns the values without their known noise, (n,); fitted noise counts as part of the function."""
        return self.values - self.noise * self._weights

    @property
    def basis_weights(self) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation of the weights of the basis functions, (functions,) each."""
        from scipy.linalg import solve_triangular

        solved = solve_triangular(self._cholesky_factor, self.basis.T, lower=True, check_finite=False)
        return self.basis @ self._weights, np.sqrt(np.maximum(1.0 - (solved**2).sum(0), 0.0))

    @property
    def log_likelihood(self) -> float:
        """Log marginal likelihood of the values, up to a constant."""
        return float(-0.5 * self.values @ self._weights - np.log(np.diag(self._cholesky_factor)).sum())

    @cached_property
    def _cholesky_factor(self) -> FloatArray:
        covariance = self._cross_covariance(self.points, self.basis)
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
        """Returns the negative log posterior density of a kernel and its gradient.

        Args:
            log_params: Logarithms of the kernel's parameters; see `Kernel.log_params`.
            mode: Mode of their prior.
            squared_differences: Squared differences of the points, (n, n, coordinates).
        """
        kernel = Kernel.from_log_params(log_params)
        process = GaussianProcess(kernel, self.points, self.values, self.noise, self.basis)
        # Derivatives of the negative log likelihood by the covariances of the values.
        by_covariance = 0.5 * (process._inverse - np.outer(process._weights, process._weights))
        by_log_covariance = by_covariance * kernel.covariance_between(self.points, self.points)
        gradient = np.r_[
            np.einsum("ij,ijk->k", by_log_covariance, squared_differences) / kernel.length_scales**2,
            by_log_covariance.sum(),
            np.trace(by_covariance) * kernel.noise,
        ]
        deviations = (log_params - mode) / kernel.log_param_stds
        value = -process.log_likelihood + 0.5 * float(deviations @ deviations)
        return value, gradient + deviations / kernel.log_param_stds


def _cholesky(covariance: FloatArray) -> FloatArray:
    """Returns the lower Cholesky factor, adding jitter where nearly identical points make the matrix singular."""
    from scipy.linalg import LinAlgError, cholesky

    scale, diagonal = float(np.diag(covariance).mean()), np.diag_indices_from(covariance)
    for jitter in _JITTER_STEPS:
        try:
            return np.asarray(cholesky(covariance, lower=True, check_finite=False))
        except LinAlgError:
            covariance[diagonal] += jitter * scale
    return np.asarray(cholesky(covariance, lower=True, check_finite=False))
