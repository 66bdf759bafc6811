from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from nbt.fit.ridge import STRENGTHS, choose_ridge_strength, ridge_head, ridge_predictions, ridge_probe_accuracy
from nbt.fit.spectrum import Spectrum
from tests.fit.measure_contract import MeasureContract, draw


def predict_by_refitting(features: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """Predicts every sample by a ridge regression on the others, with one fit per sample."""
    targets = np.eye(labels.max() + 1)[labels]
    predictions = []
    for left_out in range(len(labels)):
        rest = np.arange(len(labels)) != left_out
        model = Ridge(alpha=strength, solver="svd").fit(features[rest], targets[rest])
        predictions.append(model.predict(features[left_out : left_out + 1])[0].argmax())
    return np.array(predictions)


class TestRidgeProbe(MeasureContract):
    measure = staticmethod(ridge_probe_accuracy)
    tolerance = 1e-9

    @pytest.mark.parametrize(("n", "dim"), [(60, 10), (30, 30), (24, 60), (80, 3)])
    @pytest.mark.parametrize("apart", [0.3, 1.0])
    def test_agrees_with_leave_one_out_refits(self, n: int, dim: int, apart: float) -> None:
        features, labels = draw(n + 7, n, dim, apart=apart)
        spectrum = Spectrum.of(features)
        expected = predict_by_refitting(features, labels, choose_ridge_strength(spectrum, labels))
        assert np.array_equal(ridge_predictions(spectrum, labels), expected)

    @pytest.mark.parametrize(("n", "dim"), [(60, 10), (24, 60)])
    def test_strength_minimises_the_generalised_cross_validation_error(self, n: int, dim: int) -> None:
        features, labels = draw(n, n, dim, apart=0.5)
        spectrum, targets = Spectrum.of(features), np.eye(3)[labels]
        centred = features - features.mean(axis=0)

        def gcv(strength: float) -> float:
            scatter = centred.T @ centred + strength * np.eye(dim)
            hat = centred @ np.linalg.solve(scatter, centred.T) + 1.0 / n
            return float(((targets - hat @ targets) ** 2).sum() / (n - np.trace(hat)) ** 2)

        strengths = [share * (centred**2).sum() for share in STRENGTHS]
        assert choose_ridge_strength(spectrum, labels) == pytest.approx(min(strengths, key=gcv))

    def test_the_single_sample_of_a_class_is_misclassified(self) -> None:
        features, labels = draw(1, 30, apart=6.0)
        labels[0] = 3
        assert ridge_predictions(Spectrum.of(features), labels)[0] != 3

    @pytest.mark.parametrize("dim", [10, 200])
    @pytest.mark.parametrize("offset", [1e2, 1e3])
    def test_distance_from_the_origin_does_not_matter(self, dim: int, offset: float) -> None:
        features, labels = draw(3, 100, dim, 5, apart=0.5)
        shifted = ridge_predictions(Spectrum.of(features + offset), labels)
        assert np.array_equal(shifted, ridge_predictions(Spectrum.of(features), labels))

    def test_noise_gives_chance_accuracy(self) -> None:
        noise = np.random.default_rng(0).standard_normal((2000, 5))
        labels = np.random.default_rng(1).integers(4, size=2000)
        assert ridge_probe_accuracy(noise, labels) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("shape", [(60, 8), (20, 50)])
def test_the_head_is_the_ridge_regression(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=shape) + 3.0, np.arange(shape[0]) % 4
    spectrum = Spectrum.of(features)
    reference = Ridge(alpha=choose_ridge_strength(spectrum, labels)).fit(features, np.eye(4)[labels])
    weight, bias = ridge_head(spectrum, labels)
    assert weight == pytest.approx(reference.coef_, rel=1e-6, abs=1e-9)
    assert bias == pytest.approx(reference.intercept_, rel=1e-6, abs=1e-9)


def test_constant_features_have_no_head() -> None:
    with pytest.raises(ValueError, match="constant features"):
        ridge_head(Spectrum.of(np.ones((6, 3))), np.array([0, 1, 0, 1, 0, 1]))
