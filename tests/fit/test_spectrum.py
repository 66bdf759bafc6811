from __future__ import annotations

import numpy as np
import pytest

from nbt.fit.spectrum import Spectrum, intercept_terms, one_hot
from tests.fit.measure_contract import draw

SHAPES = [(60, 10), (30, 30), (24, 60)]


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_agrees_with_the_singular_value_decomposition(n: int, dim: int) -> None:
    features, labels = draw(n, n, dim)
    spectrum = Spectrum.of(features)
    assert (spectrum.n, spectrum.dim) == (n, dim)
    expected = np.linalg.svd(features, compute_uv=False)
    assert np.sqrt(spectrum.values[::-1]) == pytest.approx(expected, rel=1e-6)
    left = np.vstack([spectrum.left_singular_vectors(slice(0, 7)), spectrum.left_singular_vectors(slice(7, n))])
    assert left.T @ left == pytest.approx(np.eye(min(n, dim)), abs=1e-6)
    assert left @ np.diag(spectrum.values) @ left.T == pytest.approx(features @ features.T, abs=1e-8)
    assert spectrum.coordinates(one_hot(labels)) == pytest.approx(left.T @ one_hot(labels), abs=1e-8)


@pytest.mark.parametrize("n", [40, 6])
def test_only_directions_in_the_span_are_kept(n: int) -> None:
    features, _ = draw(1, n, 4)
    assert len(Spectrum.of(np.hstack([features, 2.0 * features, np.zeros((n, 1))])).values) == 4
    assert len(Spectrum.of(np.zeros((n, 9))).values) == 0


def test_class_coordinates_depend_on_the_labels() -> None:
    features, labels = draw(2)
    spectrum, other = Spectrum.of(features), np.roll(labels, 1)
    for codes in (labels, other, labels):
        assert np.array_equal(spectrum.class_coordinates(codes), spectrum.coordinates(one_hot(codes)))


@pytest.mark.parametrize(("n", "dim"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_centred_scatter(n: int, dim: int, offset: float) -> None:
    features, _ = draw(3, n, dim)
    trace, squared = Spectrum.of(features + offset).centred_scatter()
    scatter = n * np.cov(features.T, bias=True)
    assert trace == pytest.approx(np.trace(scatter), rel=1e-5)
    assert squared == pytest.approx((scatter**2).sum(), rel=1e-5)


@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_intercept_terms(n: int, dim: int) -> None:
    features, labels = draw(4, n, dim)
    spectrum, targets = Spectrum.of(features), one_hot(labels)
    factors = 3.0 / (spectrum.values + 3.0)
    residual = np.eye(n) - features @ np.linalg.solve(features.T @ features + 3.0 * np.eye(dim), features.T)
    for operator, eigenvalues in ((residual, factors), (residual @ residual, factors**2)):
        class_sums, total = intercept_terms(spectrum.coordinates(targets), targets.sum(axis=0), eigenvalues)
        assert class_sums == pytest.approx(operator.sum(axis=0) @ targets, abs=1e-8)
        assert total == pytest.approx(operator.sum(), abs=1e-8)
