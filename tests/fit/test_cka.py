from __future__ import annotations

import numpy as np
import pytest
import torch

from nbt.fit.cka import linear_cka

CHANCE = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "first", "second"), [(40, 5, 9), (10, 30, 4), (12, 50, 60)])
def test_agrees_with_the_definition_by_kernels(n: int, first: int, second: int) -> None:
    one = CHANCE.standard_normal((n, first)) + 3.0
    other = one @ CHANCE.standard_normal((first, second)) + CHANCE.standard_normal((n, second))
    centre = np.eye(n) - 1.0 / n
    kernels = [centre @ features @ features.T @ centre for features in (one, other)]
    expected = np.trace(kernels[0] @ kernels[1]) / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert linear_cka(one, other) == pytest.approx(expected)
    assert linear_cka(other, one) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_rotation_scale_and_offset_do_not_matter(shape: tuple[int, int]) -> None:
    features = CHANCE.standard_normal(shape)
    rotation, _ = np.linalg.qr(CHANCE.standard_normal((shape[1], shape[1])))
    assert linear_cka(features, 7.0 * features @ rotation - 3.0) == pytest.approx(1.0)


def test_constant_features_give_0() -> None:
    features = CHANCE.standard_normal((20, 4))
    assert linear_cka(features, np.full((20, 3), 0.1)) == 0.0
    assert linear_cka(np.zeros((20, 3)), np.zeros((20, 3))) == 0.0


def test_unrelated_features_have_low_similarity() -> None:
    assert linear_cka(CHANCE.standard_normal((2000, 4)), CHANCE.standard_normal((2000, 4))) < 0.01


def test_accepts_single_precision_and_tensors() -> None:
    one, other = CHANCE.standard_normal((20, 4)), CHANCE.standard_normal((20, 6))
    expected = linear_cka(one, other)
    assert linear_cka(torch.from_numpy(one).float(), torch.from_numpy(other)) == pytest.approx(expected, abs=1e-5)


def test_refuses_mismatched_features() -> None:
    with pytest.raises(ValueError, match="features_b: 19 samples, but features_a have 20"):
        linear_cka(np.ones((20, 3)), np.ones((19, 3)))
    with pytest.raises(ValueError, match="features_b: 1 values are NaN"):
        linear_cka(np.ones((2, 1)), np.array([[1.0], [np.nan]]))
