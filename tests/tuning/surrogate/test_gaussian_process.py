from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from nbt.tuning.surrogate.gaussian_process import _JITTER, _MEAN_PRIOR_VARIANCE, GaussianProcess, Kernel, _cholesky

FloatArray = NDArray[np.float64]

KERNEL = Kernel(np.array([0.3, 0.7, 1.5]), 0.8, 0.05)


def data(n: int = 25, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns points, values and known variances."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3))
    values = np.sin(6 * points[:, 0]) + 0.5 * points[:, 1] + 0.1 * rng.standard_normal(n)
    return points, values, rng.uniform(0.01, 0.1, n)


def make_process(n: int = 25, functions: int = 2) -> GaussianProcess:
    points, values, noise = data(n)
    basis = np.random.default_rng(1).standard_normal((functions, n))
    return GaussianProcess.with_kernel(KERNEL, points, values, noise=noise, basis=basis)


def covariances_entry_by_entry(process: GaussianProcess) -> tuple[FloatArray, FloatArray]:
    """Returns the covariances of the function and of the values at the points, computed entry by entry."""
    n, kernel = len(process.values), process.kernel
    function = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            gap = (process.points[i] - process.points[j]) / kernel.length_scales
            function[i, j] = kernel.amplitude * np.exp(-0.5 * gap @ gap) + _MEAN_PRIOR_VARIANCE
            function[i, j] += process.basis[:, i] @ process.basis[:, j]
    return function, function + np.diag(process.noise + kernel.noise + _JITTER)


class TestKernel:
    def test_log_params_round_trip(self) -> None:
        back = Kernel.from_log_params(KERNEL.log_params)
        assert back.length_scales == pytest.approx(KERNEL.length_scales)
        assert (back.amplitude, back.noise) == (pytest.approx(0.8), pytest.approx(0.05))

    def test_the_mean_is_geometric(self) -> None:
        mean = Kernel.mean([Kernel(np.array([1.0, 2.0]), 1.0, 0.01), Kernel(np.array([4.0, 2.0]), 4.0, 1.0)])
        assert mean.length_scales == pytest.approx([2.0, 2.0])
        assert (mean.amplitude, mean.noise) == (pytest.approx(2.0), pytest.approx(0.1))

    @pytest.mark.parametrize("coordinates", [2, 20, 80])
    def test_the_default_correlation_does_not_depend_on_the_number_of_coordinates(self, coordinates: int) -> None:
        points = np.random.default_rng(0).random((60, coordinates))
        correlations = Kernel.default(coordinates).covariance_between(points[:30], points[30:])
        assert np.mean(correlations) == pytest.approx(0.84, abs=0.03)

    def test_covariance_falls_with_distance_and_is_never_above_the_amplitude(self) -> None:
        at = np.array([[0.0, 0.0, 0.0]])
        far = np.array([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [1e3, 0.0, 0.0]])
        assert KERNEL.covariance_between(at, far)[0] == pytest.approx([0.8, 0.8 * np.exp(-0.5), 0.0])
        same = np.full((2, 3), 1e6) + 1e-9
        assert (KERNEL.covariance_between(same, same) <= 0.8).all()


class TestPosterior:
    def test_it_equals_the_direct_computation(self) -> None:
        process = make_process()
        rng = np.random.default_rng(2)
        new, basis = rng.random((7, 3)), rng.standard_normal((2, 7))
        cross = process.kernel.covariance_between(process.points, new) + process.basis.T @ basis + _MEAN_PRIOR_VARIANCE
        inverse = np.linalg.inv(covariances_entry_by_entry(process)[1])
        mean, variance = process.predict(new, basis)
        assert mean == pytest.approx(cross.T @ inverse @ process.values, abs=1e-8)
        prior = 0.8 + _MEAN_PRIOR_VARIANCE + (basis**2).sum(0)
        assert variance == pytest.approx(prior - np.einsum("ij,ik,kj->j", cross, inverse, cross), abs=1e-8)

    def test_mean_equals_that_of_predict(self) -> None:
        rng = np.random.default_rng(3)
        process, new, basis = make_process(), rng.random((7, 3)), rng.standard_normal((2, 7))
        np.testing.assert_array_equal(process.mean(new, basis), process.predict(new, basis)[0])

    def test_no_basis_equals_a_zero_basis(self) -> None:
        points, values, noise = data()
        process = GaussianProcess.with_kernel(KERNEL, points, values, noise=noise)
        zeros = GaussianProcess.with_kernel(KERNEL, points, values, noise=noise, basis=np.zeros((1, 25)))
        for predicted, expected in zip(process.predict(points), zeros.predict(points, np.zeros((1, 25))), strict=True):
            assert predicted == pytest.approx(expected)

    def test_noise_free_values_are_interpolated_and_far_points_are_uncertain(self) -> None:
        points, values, _ = data(10)
        process = GaussianProcess.with_kernel(dataclasses.replace(KERNEL, noise=1e-8), points, values)
        mean, variance = process.predict(points)
        assert mean == pytest.approx(values, abs=1e-3) and (variance < 1e-3).all() and (variance > 0).all()
        assert process.predict(points + 100)[1] == pytest.approx(0.8, abs=0.3)

    def test_one_value_is_enough(self) -> None:
        process = GaussianProcess.with_kernel(KERNEL, np.zeros((1, 3)), np.array([2.0]))
        assert process.predict(np.zeros((1, 3)))[0] == pytest.approx(2.0, abs=0.02)

    def test_known_noise_applies_to_its_value_only(self) -> None:
        points, values, noise = data()
        noise[3], values[3] = 1e4, 50.0
        with_noise = GaussianProcess.with_kernel(KERNEL, points, values, noise=noise)
        without = GaussianProcess.with_kernel(
            KERNEL, *(np.delete(a, 3, axis=0) for a in (points, values)), noise=noise[:-1]
        )
        assert with_noise.predict(points[3:4])[0] == pytest.approx(without.predict(points[3:4])[0], abs=0.3)

    def test_leave_one_out_mean(self) -> None:
        process = make_process(12)
        for i, predicted in enumerate(process.leave_one_out_mean()):
            others = GaussianProcess.with_kernel(
                KERNEL,
                np.delete(process.points, i, axis=0),
                np.delete(process.values, i),
                noise=np.delete(process.noise, i),
                basis=np.delete(process.basis, i, axis=1),
            )
            expected, _ = others.predict(process.points[[i]], process.basis[:, [i]])
            assert predicted == pytest.approx(expected[0], abs=1e-6)

    def test_denoised_values_keep_the_fitted_noise(self) -> None:
        process = make_process()
        function, values = covariances_entry_by_entry(process)
        real = function + (KERNEL.noise + _JITTER) * np.eye(25)
        assert process.denoised_values() == pytest.approx(real @ np.linalg.solve(values, process.values), abs=1e-8)

    def test_denoised_values_keep_values_without_noise(self) -> None:
        points, values, noise = data()
        noise[:5] = 0.0
        smoothed = GaussianProcess.with_kernel(KERNEL, points, values, noise=noise).denoised_values()
        assert smoothed[:5] == pytest.approx(values[:5])
        assert (np.abs(smoothed[5:] - values[5:]) > 1e-6).all()


class TestBasis:
    def test_weights_are_those_of_bayesian_linear_regression(self) -> None:
        """The regression has a constant with the prior variance of the mean, and errors correlated like the process."""
        process = make_process(30, functions=3)
        design = np.vstack([process.basis, np.ones(30)])
        prior = np.diag([1.0, 1.0, 1.0, 1 / _MEAN_PRIOR_VARIANCE])
        errors = KERNEL.covariance_between(process.points, process.points) + np.diag(
            process.noise + KERNEL.noise + _JITTER
        )
        covariance = np.linalg.inv(prior + design @ np.linalg.solve(errors, design.T))
        mean = covariance @ design @ np.linalg.solve(errors, process.values)
        weights, spread = process.basis_weights
        assert weights == pytest.approx(mean[:3], abs=1e-8)
        assert spread == pytest.approx(np.sqrt(np.diag(covariance))[:3], abs=1e-8)

    def test_a_weight_is_found_and_its_uncertainty_decreases(self) -> None:
        rng = np.random.default_rng(0)
        spreads = []
        for n in (5, 50, 200):
            points, basis = rng.random((n, 3)), rng.standard_normal((1, n))
            process = GaussianProcess.with_kernel(KERNEL, points, 1.5 * basis[0] + 2.0, noise=0.01, basis=basis)
            mean, spread = process.basis_weights
            spreads.append(float(spread[0]))
        assert mean[0] == pytest.approx(1.5, abs=0.1)
        assert spreads[0] > 2 * spreads[1] > 2 * spreads[2]

    def test_no_functions_have_no_weights(self) -> None:
        mean, spread = make_process(functions=0).basis_weights
        assert mean.shape == spread.shape == (0,)


class TestFit:
    @pytest.mark.parametrize("functions", [0, 2])
    def test_the_gradient_is_that_of_finite_differences(self, functions: int) -> None:
        process = make_process(15, functions)
        squared_differences = (process.points[:, None] - process.points[None]) ** 2
        mode = Kernel.default(3).log_params
        rng = np.random.default_rng(3)
        for _ in range(3):
            log_params = mode + 0.7 * rng.standard_normal(5)
            _, gradient = process._negative_log_posterior(log_params, mode, squared_differences)
            for i, step in enumerate(1e-5 * np.eye(5)):
                up, down = (
                    process._negative_log_posterior(log_params + sign * step, mode, squared_differences)[0]
                    for sign in (1, -1)
                )
                assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)

    def test_the_likelihood_is_the_normal_density(self) -> None:
        from scipy.stats import multivariate_normal

        process = make_process(10)
        expected = multivariate_normal(np.zeros(10), covariances_entry_by_entry(process)[1]).logpdf(process.values)
        assert process.log_likelihood == pytest.approx(expected + 5 * np.log(2 * np.pi), abs=1e-6)

    def test_fitting_improves_the_posterior(self) -> None:
        points, values, noise = data()
        squared_differences, prior = (points[:, None] - points[None]) ** 2, Kernel.default(3)
        fitted = GaussianProcess.fit(points, values, noise=noise)
        before, after = (
            fitted._negative_log_posterior(kernel.log_params, prior.log_params, squared_differences)[0]
            for kernel in (prior, fitted.kernel)
        )
        assert after < before - 1
        assert (
            np.abs(
                fitted._negative_log_posterior(fitted.kernel.log_params, prior.log_params, squared_differences)[1]
            ).max()
            < 0.05
        )

    def test_the_relevant_coordinate_has_a_short_length_scale(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.random((60, 6))
        values = np.sin(9 * points[:, 4]) + 0.05 * rng.standard_normal(60)
        process = GaussianProcess.fit(points, values)
        lengths = process.kernel.length_scales
        assert lengths.argmin() == 4 and lengths[4] < 0.4 * np.delete(lengths, 4).min()
        new = rng.random((40, 6))
        assert process.predict(new)[0] == pytest.approx(np.sin(9 * new[:, 4]), abs=0.4)

    def test_noise_is_distinguished_from_the_function(self) -> None:
        rng = np.random.default_rng(1)
        points = rng.random((80, 2))
        low, high = (
            GaussianProcess.fit(points, points[:, 0] + sigma * rng.standard_normal(80)) for sigma in (0.02, 0.7)
        )
        assert low.kernel.noise < 0.01
        assert high.kernel.noise == pytest.approx(0.49, rel=0.5)

    def test_known_noise_is_not_fitted_again(self) -> None:
        rng = np.random.default_rng(1)
        points = rng.random((80, 2))
        values = points[:, 0] + 0.5 * rng.standard_normal(80)
        assert GaussianProcess.fit(points, values, noise=0.25).kernel.noise < 0.1

    def test_few_values_keep_the_prior_mode(self) -> None:
        prior_mode = Kernel(np.array([0.2, 5.0, 1.0]), 0.5, 0.02)
        points, values, _ = data(2)
        kernel = GaussianProcess.fit(points, values, prior_mode=prior_mode).kernel
        assert kernel.log_params == pytest.approx(prior_mode.log_params, abs=0.7)
        assert kernel.length_scales[1] > 5 * kernel.length_scales[0]

    def test_a_constant_coordinate_keeps_its_length_scale(self) -> None:
        rng = np.random.default_rng(0)
        points = rng.random((40, 3))
        points[:, 1] = 0.5
        values = np.sin(6 * points[:, 0])
        fitted = GaussianProcess.fit(points, values).kernel
        alone = GaussianProcess.fit(points[:, [0, 2]], values, prior_mode=Kernel.default(2, num_varied=3)).kernel
        assert fitted.length_scales[1] == pytest.approx(Kernel.default(3).length_scales[1])
        assert np.delete(fitted.log_params, 1) == pytest.approx(alone.log_params)

    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_duplicate_points_and_values_of_any_size_can_be_fitted(self, scale: float) -> None:
        """Long steps of the line search and nearly identical points break a plain Cholesky factorisation."""
        rng = np.random.default_rng(1)
        points = np.repeat(rng.random((12, 22)), 8, axis=0) + 1e-9 * rng.random((96, 22))
        values = scale * np.sin(9 * points[:, 0])
        basis = 100 * scale * np.vstack([points[:, 0], points[:, 0] + 1e-9])
        fitted = GaussianProcess.fit(points, values, basis=basis)
        mean, variance = fitted.predict(points, basis)
        assert np.isfinite(fitted.kernel.log_params).all() and np.isfinite(variance).all()
        assert np.corrcoef(mean, values)[0, 1] > 0.9

    def test_jitter_of_nearly_singular_covariances(self) -> None:
        covariance = np.ones((60, 60)) * 1e6
        factor = _cholesky(covariance.copy())
        assert np.abs(factor @ factor.T - covariance).max() <= 1e-3 * 1e6


def test_the_difference_of_two_points_has_the_variance_of_their_joint_posterior() -> None:
    rng = np.random.default_rng(3)
    points, values = rng.random((12, 2)), rng.normal(size=12)
    kernel = Kernel(np.array([0.4, 0.8]), 1.3, 0.05)
    process = GaussianProcess.with_kernel(kernel, points, values, noise=0.1)
    a, b = rng.random((3, 2)), rng.random((3, 2))
    both = np.concatenate([a, b])
    covariance = kernel.covariance_between(points, points) + 9.0 + np.eye(12) * (0.15 + 1e-8)
    cross = kernel.covariance_between(points, both) + 9.0
    joint = kernel.covariance_between(both, both) + 9.0 - cross.T @ np.linalg.solve(covariance, cross)
    expected = [joint[i, i] + joint[i + 3, i + 3] - 2 * joint[i, i + 3] for i in range(3)]
    mean, variance = process.difference(a, b)
    assert variance == pytest.approx(expected, rel=1e-6)
    assert mean == pytest.approx(process.predict(a)[0] - process.predict(b)[0])
    assert process.difference(a, a)[1] == pytest.approx([0.0] * 3, abs=1e-9)
