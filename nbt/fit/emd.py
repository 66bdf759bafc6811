"""EMD similarity: the closeness of the target's classes to the source's (Cui et al. 2018, arXiv 1806.06193)."""

from __future__ import annotations

import numpy as np

from nbt.fit.validation import ArrayLike, FloatArray, check_counts, check_features

GAMMA = 0.01
"""Scale of the exponent, per unit of distance; the paper's value."""


def emd_similarity(
    source_means: ArrayLike,
    source_counts: ArrayLike,
    target_means: ArrayLike,
    target_counts: ArrayLike,
    gamma: float = GAMMA,
) -> float:
    """Returns exp(-gamma EMD), EMD the earth mover's distance between the class means of source and target.

    Every class is a point weighted by its number of images; the weights of both sides are normalised to sum to one; the
    ground distance is Euclidean. The range is 0 to 1 (equal distributions); higher is more similar. It depends on the
    scale of the features.

    Cost: one linear programme with C_s C_t variables.

    Args:
        source_means: Mean features of each source class, (C_s, D).
        source_counts: Number of images per source class, (C_s,), 0 or more; classes without images are ignored.
        target_means: Mean features of each target class, (C_t, D).
        target_counts: Number of images per target class, (C_t,).
        gamma: Scale of the exponent per unit of distance, 0 or more.

    Raises:
        ValueError: The means are not finite matrices or differ in D, the counts do not match, are negative or all 0, or
            gamma is negative.
        ArithmeticError: The solver of the linear programme failed.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: {gamma} is not 0 or more")
    source, source_shares = _nonempty_classes(source_means, source_counts, "source")
    target, target_shares = _nonempty_classes(target_means, target_counts, "target")
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"target_means: {target.shape[1]} features, but source_means have {source.shape[1]}")
    distance = earth_movers_distance(_distances(source, target), source_shares, target_shares)
    return float(np.exp(-gamma * distance))


def _nonempty_classes(means: ArrayLike, counts: ArrayLike, side: str) -> tuple[FloatArray, FloatArray]:
    """Returns the means of the classes that have images, and their shares."""
    points = check_features(means, f"{side}_means")
    checked = check_counts(counts, len(points), f"{side}_counts")
    kept = checked > 0
    return points[kept], checked[kept] / checked.sum()


def _distances(source: FloatArray, target: FloatArray) -> FloatArray:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(source, target), dtype=np.float64)


def earth_movers_distance(costs: FloatArray, supply: FloatArray, demand: FloatArray) -> float:
    """Returns the minimum cost of moving `supply` (n,) to `demand` (m,), which both sum to one, at `costs` (n, m).

    Raises:
        ArithmeticError: The solver of the linear programme failed.
    """
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = costs.shape
    if min(n, m) == 1:
        return float(supply @ costs @ demand)
    outflow = kron(eye_array(n), np.ones((1, m)))
    inflow = kron(np.ones((1, n)), eye_array(m))
    # One constraint is redundant, and rounding errors could make it inconsistent with the others.
    constraints = vstack([outflow, inflow], format="csr")[:-1]
    solution = linprog(costs.ravel(), A_eq=constraints, b_eq=np.concatenate([supply, demand])[:-1], method="highs")
    if not solution.success:
        raise ArithmeticError(f"the earth mover's distance of {n} and {m} classes was not found: {solution.message}")
    return float(solution.fun)
