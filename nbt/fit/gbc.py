"""GBC: the overlap of the classes in feature space (Pandy et al. 2022, arXiv 2111.12780)."""

from __future__ import annotations

import numpy as np

from nbt.fit.pca import principal_components
from nbt.fit.spectrum import one_hot
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_features, check_labels

COMPONENTS = 64
"""Number of principal components in which the classes are modelled; the paper's value."""

_VARIANCE_FLOOR = 1e-6


def gbc(features: ArrayLike, labels: ArrayLike, *, components: int = COMPONENTS) -> float:
    """Returns minus the sum over ordered pairs of classes of their Bhattacharyya coefficients, exp(-distance).

    Every class is modelled as a Gaussian with diagonal covariance in the first principal components. The range is -C (C
    - 1) (all classes equal) to 0 (no overlap); higher is better. Only values on the same target can be compared,
    because the range depends on the number of classes. Variances are at least 1e-6 of the mean variance of the
    components; this affects classes with one sample, which are treated as points.

    Cost: O(N D min(N, D)) for the components, O(C^2 components).

    Args:
        features: (N, D).
        labels: Integers (N,).
        components: Number of principal components, 1 or more.

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, there are fewer than two
            classes, or `components` is below 1.
    """
    matrix = check_features(features)
    codes = check_labels(labels, len(matrix))
    if components < 1:
        raise ValueError(f"components: {components} is not 1 or more")
    return gbc_from_components(principal_components(matrix, components), codes, components=components)


def gbc_from_components(projected: FloatArray, codes: IntArray, *, components: int = COMPONENTS) -> float:
    """Returns GBC for the first `components` principal components and validated labels; see `gbc`."""
    points = projected[:, :components]
    membership = one_hot(codes)
    counts = membership.sum(axis=0)[:, None]
    means = membership.T @ points / counts
    deviations = points - means[codes]
    floor = max(_VARIANCE_FLOOR * float(points.var(axis=0).mean()), np.finfo(np.float64).tiny)
    variances = np.maximum(membership.T @ deviations**2 / counts, floor)
    overlap = sum(_bhattacharyya_coefficients(means, variances, row).sum() - 1.0 for row in range(len(means)))
    return -float(overlap)


def _bhattacharyya_coefficients(means: FloatArray, variances: FloatArray, row: int) -> FloatArray:
    """Returns the Bhattacharyya coefficients of one class with every class, including itself (1), (C,)."""
    mixed = (variances[row] + variances) / 2.0
    mean_terms = np.square(means[row] - means) / mixed
    variance_terms = np.log(mixed) - 0.5 * (np.log(variances[row]) + np.log(variances))
    return np.asarray(np.exp(-(mean_terms / 8.0 + variance_terms / 2.0).sum(axis=1)))
