"""LEEP, NCE and N-LEEP: how well source classes, or clusters of features, predict the target's classes."""

from __future__ import annotations

import numpy as np

from nbt.fit.pca import principal_components
from nbt.fit.spectrum import one_hot
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_features, check_labels, check_probabilities

COMPONENTS = 32
"""Number of principal components in which N-LEEP clusters the samples."""

CLUSTERS_PER_CLASS = 5
"""Number of clusters per class, the default of Li et al. 2021."""

_MAX_CLUSTERS = 256
_SAMPLES_PER_CLUSTER = 4
_EM_ITERATIONS = 12
_VARIANCE_FLOOR = 1e-3


def leep(source_probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns the log expected empirical prediction (Nguyen et al. 2020, arXiv 2002.12462).

    The mean over samples of ln sum_z p(y|z) P(z|x), with p(y|z) the empirical conditional distribution of labels given
    the source classes z, weighted by their probabilities. The range is minus the entropy of the labels to 0; higher is
    better.

    Cost: O(N C_s C).

    Args:
        source_probs: Probabilities of the source's classes, (N, C_s); rows sum to one.
        labels: Integers (N,).

    Raises:
        ValueError: Probabilities are negative, not finite or do not sum to one; the labels do not match them, or there
            are fewer than two classes.
    """
    probabilities = check_probabilities(source_probs)
    return _leep(probabilities, check_labels(labels, len(probabilities)))


def _leep(probabilities: FloatArray, codes: IntArray) -> float:
    """Returns LEEP for validated probabilities and labels 0 ... C-1; see `leep`."""
    joint = probabilities.T @ one_hot(codes)  # (C_s, C)
    mass = joint.sum(axis=1, keepdims=True)
    conditional = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    expected = np.einsum("nz,zn->n", probabilities, conditional[:, codes])
    return float(np.log(np.maximum(expected, np.finfo(np.float64).tiny)).mean())


def nce(source_labels: ArrayLike, labels: ArrayLike) -> float:
    """Returns the negative conditional entropy -H(y | z) in nats (Tran et al. 2019, arXiv 1908.08142).

    The range is minus ln C to 0 (the source class determines the label); higher is better. It is biased upwards if
    there are few samples per source class.

    Cost: O(N).

    Args:
        source_labels: The source class of each sample, integers (N,); a single class is allowed.
        labels: Integers (N,).

    Raises:
        ValueError: The labels differ in length or are not whole numbers, or there are fewer than two classes.
    """
    source = check_labels(source_labels, None, "source_labels", classes=1)
    codes = check_labels(labels, len(source))
    joint = np.zeros((int(source.max()) + 1, int(codes.max()) + 1))
    np.add.at(joint, (source, codes), 1.0 / len(codes))
    conditional = joint / joint.sum(axis=1, keepdims=True)
    return float((joint * np.log(np.where(joint > 0, conditional, 1.0))).sum())


def nleep(features: ArrayLike, labels: ArrayLike, *, per_class: int = CLUSTERS_PER_CLASS, seed: int = 0) -> float:
    """Returns N-LEEP: LEEP with clusters of the features instead of source classes (Li et al. 2021, arXiv 2011.11200).

    A Gaussian mixture with diagonal covariances is fitted to the first 32 principal components; LEEP uses the
    responsibilities of its clusters as source probabilities. At most 0; higher is better.

    To limit the cost, the mixture has `per_class` clusters per class, at most 256 and at most one per four samples,
    starts from random samples as centres, and takes 12 iterations of EM.

    Cost: O(N D min(N, D)) for the components, O(N 32 clusters) per iteration.

    Args:
        features: (N, D).
        labels: Integers (N,).
        per_class: Number of clusters per class, 1 or more.
        seed: Seed of the initial centres.

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, there are fewer than two
            classes, or `per_class` is below 1.
    """
    matrix = check_features(features)
    codes = check_labels(labels, len(matrix))
    if per_class < 1:
        raise ValueError(f"per_class: {per_class} is not 1 or more")
    return nleep_from_components(principal_components(matrix, COMPONENTS), codes, per_class=per_class, seed=seed)


def nleep_from_components(
    components: FloatArray, codes: IntArray, *, per_class: int = CLUSTERS_PER_CLASS, seed: int = 0
) -> float:
    """Returns N-LEEP for principal components, of which the first 32 are used, and validated labels; see `nleep`."""
    points = components[:, :COMPONENTS]
    clusters = per_class * (int(codes.max()) + 1)
    clusters = max(1, min(clusters, _MAX_CLUSTERS, len(points) // _SAMPLES_PER_CLUSTER))
    return _leep(_responsibilities(points, clusters, seed), codes)


def _responsibilities(points: FloatArray, clusters: int, seed: int) -> FloatArray:
    """Returns the responsibilities of a mixture of diagonal Gaussians, (N, clusters), fitted by EM."""
    # Centres are drawn from the sorted samples, so that the result does not depend on the order of the samples.
    order = np.lexsort(points.T)
    centres = points[order[np.random.default_rng(seed).choice(len(points), clusters, replace=False)]]
    spread = points.var(axis=0).mean()
    if spread <= 0.0:
        return np.full((len(points), clusters), 1.0 / clusters)
    variances = np.full_like(centres, spread / clusters ** (2.0 / points.shape[1]))
    weights = np.full(clusters, 1.0 / clusters)
    responsibilities = _e_step(points, centres, variances, weights)
    for _ in range(_EM_ITERATIONS):
        mass = responsibilities.sum(axis=0) + np.finfo(np.float64).eps
        centres = responsibilities.T @ points / mass[:, None]
        variances = np.maximum(responsibilities.T @ points**2 / mass[:, None] - centres**2, _VARIANCE_FLOOR * spread)
        weights = mass / mass.sum()
        responsibilities = _e_step(points, centres, variances, weights)
    return responsibilities


def _e_step(points: FloatArray, centres: FloatArray, variances: FloatArray, weights: FloatArray) -> FloatArray:
    """Returns the responsibilities of a mixture with the given parameters, (N, clusters)."""
    precision = 1.0 / variances
    distance = points**2 @ precision.T - 2.0 * points @ (centres * precision).T + (centres**2 * precision).sum(axis=1)
    log_density = np.log(weights) + 0.5 * np.log(precision).sum(axis=1) - 0.5 * distance
    log_density -= log_density.max(axis=1, keepdims=True)
    responsibilities: FloatArray = np.exp(log_density)
    responsibilities /= responsibilities.sum(axis=1, keepdims=True)
    return responsibilities
