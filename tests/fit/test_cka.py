from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt.fit.cka import linear_cka

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "dim_a", "dim_b"), [(40, 5, 9), (10, 30, 4), (12, 50, 60)])
def test_agrees_with_the_definition_by_kernels(n: int, dim_a: int, dim_b: int) -> None:
    features_a = RNG.standard_normal((n, dim_a)) + 3.0
    features_b = features_a @ RNG.standard_normal((dim_a, dim_b)) + RNG.standard_normal((n, dim_b))
    centre = np.eye(n) - 1.0 / n
    kernels = [centre @ features @ features.T @ centre for features in (features_a, features_b)]
    expected = np.trace(kernels[0] @ kernels[1]) / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert linear_cka(features_a, features_b) == pytest.approx(expected)
    assert linear_cka(features_b, features_a) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_rotation_scale_and_offset_do_not_matter(shape: tuple[int, int]) -> None:
    features = RNG.standard_normal(shape)
    rotation, _ = np.linalg.qr(RNG.standard_normal((shape[1], shape[1])))
    assert linear_cka(features, 7.0 * features @ rotation - 3.0) == pytest.approx(1.0)


def test_constant_features_give_0() -> None:
    features = RNG.standard_normal((20, 4))
    assert linear_cka(features, np.full((20, 3), 0.1)) == 0.0
    assert linear_cka(np.zeros((20, 3)), np.zeros((20, 3))) == 0.0


def test_unrelated_features_have_low_similarity() -> None:
    assert linear_cka(RNG.standard_normal((2000, 4)), RNG.standard_normal((2000, 4))) < 0.01


def test_accepts_single_precision_and_tensors() -> None:
    features_a, features_b = RNG.standard_normal((20, 4)), RNG.standard_normal((20, 6))
    expected = linear_cka(features_a, features_b)
    assert linear_cka(torch.from_numpy(features_a).float(), torch.from_numpy(features_b)) == pytest.approx(
        expected, abs=1e-5
    )


def test_refuses_mismatched_features() -> None:
    with pytest.raises(ValueError, match="features_b: 19 samples, but features_a have 20"):
        linear_cka(np.ones((20, 3)), np.ones((19, 3)))
    with pytest.raises(ValueError, match="features_b: 1 values are NaN"):
        linear_cka(np.ones((2, 1)), np.array([[1.0], [np.nan]]))
