"""EMD similarity: how far the target's classes are from the source's (Cui et al. 2018, arXiv 1806.06193)."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import ArrayLike, FloatArray, check_features, check_weights

GAMMA = 0.01


def emd_similarity(
    source_means: ArrayLike,
    source_counts: ArrayLike,
    target_means: ArrayLike,
    target_counts: ArrayLike,
    gamma: float = GAMMA,
) -> float:
    """Returns exp(-gamma EMD), EMD the earth mover's distance between the class means of source and target.

    Every class is a point with its number of images as weight; both sides are normalised to sum to one; the ground
    distance is Euclidean. Between 0 and 1 (equal distributions), higher is more similar. It depends on the scale of
    the features.

    Cost: one linear programme with C_s C_t variables.

    Args:
        source_means: Mean features of each source class, (C_s, D).
        source_counts: Images of each, (C_s,), 0 or more; a class without images plays no part.
        target_means: (C_t, D).
        target_counts: (C_t,).
        gamma: 0 or more, per unit of distance.

    Raises:
        ValueError: Means that are no finite matrices or of different D, counts that do not match, are negative or sum
            to nothing, or a negative gamma.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: {gamma} is not 0 or more")
    source, weights = _nonempty_classes(source_means, source_counts, "source")
    target, shares = _nonempty_classes(target_means, target_counts, "target")
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"target_means: {target.shape[1]} features, but source_means have {source.shape[1]}")
    return float(np.exp(-gamma * earth_movers_distance(_distances(source, target), weights, shares)))


def _nonempty_classes(means: ArrayLike, counts: ArrayLike, side: str) -> tuple[FloatArray, FloatArray]:
    """Returns the means of the classes that have images, and their shares."""
    points = check_features(means, f"{side}_means")
    name = f"{side}_counts"
    weights = check_weights(counts, len(points), name)
    kept = weights > 0
    return points[kept], weights[kept] / weights.sum()


def _distances(source: FloatArray, target: FloatArray) -> FloatArray:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(source, target), dtype=np.float64)


def earth_movers_distance(costs: FloatArray, supply: FloatArray, demand: FloatArray) -> float:
    """Returns the least cost of moving `supply` (n,) to `demand` (m,), which sum to one, at `costs` (n, m)."""
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = costs.shape
    if min(n, m) == 1:
        return float(supply @ costs @ demand)
    leaves = kron(eye_array(n), np.ones((1, m)))
    arrives = kron(np.ones((1, n)), eye_array(m))
    # One constraint follows from the others, and rounding could make it contradict them.
    constraints = vstack([leaves, arrives], format="csr")[:-1]
    found = linprog(costs.ravel(), A_eq=constraints, b_eq=np.concatenate([supply, demand])[:-1], method="highs")
    if not found.success:
        raise ArithmeticError(f"the earth mover's distance of {n} and {m} classes was not found: {found.message}")
    return float(found.fun)
