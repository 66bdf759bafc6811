from __future__ import annotations

import numpy as np
import pytest

from nbt.fit import pca
from nbt.fit.pca import components_from_spectrum, principal_components
from nbt.fit.spectrum import Spectrum
from tests.fit.measure_contract import draw


def by_definition(features: np.ndarray, components: int) -> np.ndarray:
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return left[:, :components] * values[:components]


@pytest.mark.parametrize(("n", "dim"), [(60, 10), (30, 30), (24, 60)])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_both_methods_give_the_principal_components(n: int, dim: int, offset: float) -> None:
    features = draw(n, n, dim)[0] + offset
    expected = by_definition(features, 4)
    for components in (principal_components(features, 4), components_from_spectrum(Spectrum.of(features), 4)):
        assert np.abs(components) == pytest.approx(np.abs(expected), abs=1e-6), "up to the sign"
        assert (components[np.abs(components).argmax(axis=0), range(4)] > 0).all()


def test_the_iterative_method_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = draw(1, 120, 80)
    exact = components_from_spectrum(Spectrum.of(features), 4)
    monkeypatch.setattr(pca, "_MAX_DENSE_SIZE", 8)
    assert components_from_spectrum(Spectrum.of(features), 4) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("n", [40, 6])
def test_directions_without_variance_are_left_out(n: int) -> None:
    features = np.hstack([draw(2, n, 2)[0], np.full((n, 3), 7.0)])
    for components in (principal_components(features, 5), components_from_spectrum(Spectrum.of(features), 5)):
        assert components.shape == (n, 2)
    for constant in (np.zeros((n, 3)), np.full((n, 3), 7.0)):
        for components in (principal_components(constant, 5), components_from_spectrum(Spectrum.of(constant), 5)):
            assert components == pytest.approx(np.zeros((n, 1)), abs=1e-6)
