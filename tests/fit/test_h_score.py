from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from nbt.fit.h_score import h_score, ledoit_wolf
from nbt.fit.spectrum import Spectrum
from tests.fit.measure_contract import MeasureContract, draw

SHAPES = [(60, 10), (30, 30), (24, 60), (200, 3)]


def between_class_covariance(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = np.array([features[labels == label].mean(axis=0) for label in labels])
    return np.cov(means.T, bias=True)


class TestHScore(MeasureContract):
    measure = staticmethod(h_score)

    @pytest.mark.parametrize(("n", "dim"), SHAPES)
    def test_agrees_with_the_definition(self, n: int, dim: int) -> None:
        features, labels = draw(n, n, dim)
        expected = np.trace(np.linalg.pinv(np.cov(features.T, bias=True)) @ between_class_covariance(features, labels))
        assert h_score(features, labels) == pytest.approx(expected, abs=1e-6)

    def test_bounds_are_attained(self) -> None:
        labels = np.arange(60) % 3
        assert h_score(np.eye(3)[labels], labels) == pytest.approx(2.0)
        assert h_score(np.ones((60, 4)), labels) == pytest.approx(0.0, abs=1e-9)

    def test_invariant_to_linear_maps_of_the_features(self) -> None:
        features, labels = draw(5)
        mixed = features @ np.random.default_rng(0).standard_normal((8, 8)) + 7.0
        assert h_score(mixed, labels) == pytest.approx(h_score(features, labels), abs=1e-6)


class TestRegularisedHScore(MeasureContract):
    measure = staticmethod(partial(h_score, regularized=True))

    @pytest.mark.parametrize(("n", "dim"), SHAPES)
    @pytest.mark.parametrize("offset", [0.0, 30.0])
    def test_agrees_with_the_definition_with_the_covariance_of_scikit_learn(
        self, n: int, dim: int, offset: float
    ) -> None:
        features, labels = draw(n, n, dim)
        features = features + offset
        estimate = LedoitWolf().fit(features)
        inverse = np.linalg.inv(estimate.covariance_)
        expected = (1 - estimate.shrinkage_) * np.trace(inverse @ between_class_covariance(features, labels))
        assert ledoit_wolf(Spectrum.of(features))[0] == pytest.approx(estimate.shrinkage_, abs=1e-7)
        assert h_score(features, labels, regularized=True) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("dim", [10, 200])
    def test_distance_from_the_origin_does_not_matter(self, dim: int) -> None:
        features, labels = draw(3, 100, dim)
        shifted = h_score(features + 1e3, labels, regularized=True)
        assert shifted == pytest.approx(h_score(features, labels, regularized=True), abs=1e-5)

    def test_noise_in_many_dimensions_has_a_low_score(self) -> None:
        noise = np.random.default_rng(0).standard_normal((40, 200))
        labels = np.arange(40) % 4
        assert h_score(noise, labels) == pytest.approx(3.0)
        assert h_score(noise, labels, regularized=True) < 0.5
