"""Linear CKA: how alike two sets of features are, whatever their rotation (Kornblith et al. 2019)."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import ArrayLike, FloatArray, check_features

_CONSTANT_TOLERANCE = 1e-12


def linear_cka(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Returns the linear centred kernel alignment, |F'G|^2 / (|F'F| |G'G|) in Frobenius norms (arXiv 1905.00414).

    Between 0 and 1; 1 where one is a rotation and scaling of the other. Constant features, which have no direction,
    give 0.

    Cost: O(N D_a D_b), or O(N^2 (D_a + D_b)) where that is less.

    Args:
        features_a: (N, D_a).
        features_b: (N, D_b), of the same samples in the same order.

    Raises:
        ValueError: They are no finite matrices, or of different N.
    """
    first, second = check_features(features_a, "features_a"), check_features(features_b, "features_b")
    if len(first) != len(second):
        raise ValueError(f"features_b: {len(second)} samples, but features_a have {len(first)}")
    first, second = _centred(first), _centred(second)
    if len(first) < max(first.shape[1], second.shape[1]):
        kernels = first @ first.T, second @ second.T
        return _ratio(float(np.vdot(*kernels)), *map(_norm, kernels))
    between = _norm(first.T @ second) ** 2
    return _ratio(between, _norm(first.T @ first), _norm(second.T @ second))


def _centred(features: FloatArray) -> FloatArray:
    mean = features.mean(axis=0)
    centred = features - mean
    # A constant column leaves rounding errors, which would pass for a direction.
    centred[:, np.abs(centred).max(axis=0) <= _CONSTANT_TOLERANCE * np.abs(mean)] = 0.0
    return np.asarray(centred)


def _norm(matrix: FloatArray) -> float:
    return float(np.linalg.norm(matrix))


def _ratio(between: float, first: float, second: float) -> float:
    return min(1.0, between / (first * second)) if first > 0 and second > 0 else 0.0
