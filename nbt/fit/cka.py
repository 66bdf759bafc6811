"""Linear CKA: the similarity of two sets of features, invariant to rotation (Kornblith et al. 2019)."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import ArrayLike, FloatArray, check_features

_CONSTANT_TOLERANCE = 1e-12


def linear_cka(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Returns the linear centred kernel alignment, |F'G|^2 / (|F'F| |G'G|) in Frobenius norms (arXiv 1905.00414).

    The range is 0 to 1; it is 1 if one set is a rotation and scaling of the other, and 0 for constant features.

    Cost: O(N D_a D_b), or O(N^2 (D_a + D_b)) if that is less.

    Args:
        features_a: (N, D_a).
        features_b: (N, D_b), of the same samples in the same order.

    Raises:
        ValueError: The features are not finite matrices, or differ in N.
    """
    first, second = check_features(features_a, "features_a"), check_features(features_b, "features_b")
    if len(first) != len(second):
        raise ValueError(f"features_b: {len(second)} samples, but features_a have {len(first)}")
    first, second = _centred(first), _centred(second)
    if len(first) < max(first.shape[1], second.shape[1]):
        kernels = first @ first.T, second @ second.T
        return _ratio(float(np.vdot(*kernels)), *map(_norm, kernels))
    cross = _norm(first.T @ second) ** 2
    return _ratio(cross, _norm(first.T @ first), _norm(second.T @ second))


def _centred(features: FloatArray) -> FloatArray:
    mean = features.mean(axis=0)
    centred = features - mean
    # Centring a constant column leaves rounding errors, which would count as a direction.
    centred[:, np.abs(centred).max(axis=0) <= _CONSTANT_TOLERANCE * np.abs(mean)] = 0.0
    return np.asarray(centred)


def _norm(matrix: FloatArray) -> float:
    return float(np.linalg.norm(matrix))


def _ratio(cross: float, first: float, second: float) -> float:
    return min(1.0, cross / (first * second)) if first > 0 and second > 0 else 0.0
