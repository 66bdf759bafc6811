from __future__ import annotations

import numpy as np
import pytest

from nbt.fit.transrate import transrate
from tests.fit.measure_contract import MeasureContract, draw


def coding_rate(rows: np.ndarray, eps: float) -> float:
    return 0.5 * float(np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * eps))[1])


class TestTransRate(MeasureContract):
    measure = staticmethod(transrate)

    @pytest.mark.parametrize(("n", "dim"), [(60, 8), (12, 50)])
    @pytest.mark.parametrize("eps", [1e-4, 1.0])
    def test_agrees_with_the_definition(self, n: int, dim: int, eps: float) -> None:
        features, labels = draw(n, n, dim)
        centred = features - features.mean(axis=0)
        within = sum((labels == label).mean() * coding_rate(centred[labels == label], eps) for label in range(3))
        assert transrate(features, labels, eps) == pytest.approx(coding_rate(centred, eps) - within)

    def test_uninformative_classes_give_0(self) -> None:
        assert transrate(np.ones((60, 4)), np.arange(60) % 3) == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.parametrize("eps", [0.0, -1.0, np.nan])
    def test_refuses_an_invalid_distortion(self, eps: float) -> None:
        with pytest.raises(ValueError, match=r"eps: .* is not above 0"):
            transrate(*draw(0), eps)

    @pytest.mark.parametrize("n", [60, 12])
    def test_distance_from_the_origin_does_not_matter(self, n: int) -> None:
        features, labels = draw(1, n, 20)
        assert transrate(features + 1e4, labels) == pytest.approx(transrate(features, labels), rel=1e-4)
