from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from nbt.fit.logme import logme
from tests.fit.measure_contract import MeasureContract, draw


def maximise_evidence_directly(features: np.ndarray, target: np.ndarray) -> float:
    """Maximises the evidence as a normal density of the labels, independently of the measure's formulas."""
    n = len(features)

    def negative_log_evidence(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -30, 30))
        covariance = np.eye(n) / beta + features @ features.T / alpha
        _, logdet = np.linalg.slogdet(covariance)
        return 0.5 * float(n * np.log(2 * np.pi) + logdet + target @ np.linalg.solve(covariance, target)) / n

    options = {"maxiter": 4000, "xatol": 1e-7, "fatol": 1e-10}
    starts = ([0.0, 0.0], [3.0, 3.0], [-2.0, 4.0], [6.0, 1.0])
    return -min(minimize(negative_log_evidence, start, method="Nelder-Mead", options=options).fun for start in starts)


class TestLogME(MeasureContract):
    measure = staticmethod(logme)

    @pytest.mark.parametrize(("n", "dim"), [(60, 10), (30, 30), (31, 30), (24, 60)])
    @pytest.mark.parametrize("apart", [0.0, 0.3, 2.0])
    def test_agrees_with_direct_maximisation(self, n: int, dim: int, apart: float) -> None:
        features, labels = draw(n + dim, n, dim, apart=apart)
        expected = np.mean(
            [maximise_evidence_directly(features, (labels == label).astype(float)) for label in range(3)]
        )
        assert logme(features, labels) == pytest.approx(expected, abs=1e-3)

    def test_agrees_for_linearly_dependent_columns(self) -> None:
        features, labels = draw(3, 40, 6)
        features = np.hstack([features, features[:, :3] * 2.0, np.full((40, 1), 5.0)])
        expected = np.mean(
            [maximise_evidence_directly(features, (labels == label).astype(float)) for label in range(3)]
        )
        assert logme(features, labels) == pytest.approx(expected, abs=1e-3)

    def test_uninformative_features_give_the_value_of_a_normal_distribution(self) -> None:
        labels = np.array([0, 1] * 20)
        assert logme(np.zeros((40, 3)), labels) == pytest.approx(-0.5 * (1 + np.log(2 * np.pi * 0.5)))

    def test_scale_of_features_does_not_matter(self) -> None:
        features, labels = draw(4)
        assert logme(1e4 * features, labels) == pytest.approx(logme(features, labels), abs=1e-6)
