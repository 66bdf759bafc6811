"""Principal components: the few directions in which N-LEEP and GBC model the classes; computed once for both."""

from __future__ import annotations

import numpy as np

from nbt.fit.inputs import Floats

_DENSE = 512
"""Size of the smaller side of the features up to which the decomposition is a full one."""

_SPARE = 32
_ROUNDS = 6


def principal_components(features: Floats, components: int) -> Floats:
    """Returns the coordinates of the samples along the directions of most variance, float64 (N, k), k <= components.

    Exact where N or D is 512 or less; above that by subspace iteration (Halko, Martinsson, Tropp 2011, arXiv
    0909.4061) with 6 rounds, 32 spare directions and a fixed seed. Directions without variance are left out. The sign
    of a direction is such that the largest coordinate is positive, so that equal features give equal components.

    Args:
        features: float64 (N, D).
        components: 1 or more.
    """
    centred = features - features.mean(axis=0)
    if min(centred.shape) > max(_DENSE, components + _SPARE):
        centred = _compress(centred, components + _SPARE)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    rounding = max(features.shape) * np.finfo(np.float64).eps * float(np.abs(features).max()) * np.sqrt(len(features))
    kept = values[:components] > max(rounding, float(values[0]) * 1e-9)
    coordinates: Floats = left[:, :components][:, kept] * values[:components][kept]
    if not coordinates.shape[1]:
        return np.zeros((len(features), 1))
    largest = np.abs(coordinates).argmax(axis=0)
    return coordinates * np.sign(coordinates[largest, np.arange(coordinates.shape[1])])


def _compress(centred: Floats, width: int) -> Floats:
    """Returns features of fewer columns, (N, width), with all but the same leading principal components."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((centred.shape[1], width)))[0]
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    return np.asarray(centred @ basis)
