from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.stats import multivariate_normal, norm

from nbt.fit.gbc import gbc
from tests.fit.measure_contract import MeasureContract, draw


class TestGBC(MeasureContract):
    measure = staticmethod(gbc)

    def test_agrees_with_the_overlap_of_densities_in_one_dimension(self) -> None:
        features, labels = draw(0, 80, 1, 2)
        first, second = (norm(*_moments(features[labels == label, 0])) for label in (0, 1))
        overlap, _ = quad(lambda x: np.sqrt(first.pdf(x) * second.pdf(x)), -20, 20, limit=200)
        assert gbc(features, labels) == pytest.approx(-2 * overlap, abs=1e-6), "both orders of the pair count"

    def test_agrees_with_the_overlap_of_densities_in_two_dimensions(self) -> None:
        features, labels = draw(1, 80, 2, 2)
        features -= features.mean(axis=0)
        axes = np.linalg.svd(features, full_matrices=False)[2]
        projected = features @ axes.T
        densities = [
            multivariate_normal(
                projected[labels == label].mean(axis=0), np.diag(projected[labels == label].var(axis=0))
            )
            for label in (0, 1)
        ]
        overlap, _ = dblquad(
            lambda y, x: np.sqrt(densities[0].pdf((x, y)) * densities[1].pdf((x, y))), -12, 12, -12, 12, epsabs=1e-6
        )
        assert gbc(features, labels) == pytest.approx(-2 * overlap, abs=1e-4)

    def test_bounds_are_attained(self) -> None:
        labels = np.arange(60) % 3
        assert gbc(np.zeros((60, 4)), labels) == pytest.approx(-6.0), "C (C - 1) pairs of equal classes"
        assert gbc(np.eye(3)[labels], labels) == pytest.approx(0.0)

    def test_scale_of_features_does_not_matter(self) -> None:
        features, labels = draw(2)
        assert gbc(1e3 * features, labels) == pytest.approx(gbc(features, labels))

    def test_refuses_no_components(self) -> None:
        with pytest.raises(ValueError, match="components: 0 is not 1 or more"):
            gbc(*draw(3), components=0)


def _moments(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std())
