"""TransRate: what knowing the class saves in coding the features (Huang et al. 2022, arXiv 2106.09362)."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum
from nbt.fit.validation import ArrayLike, FloatArray, Integers, check_labels

EPS = 1e-4
"""Squared distortion up to which features are coded, the paper's choice."""


def transrate(features: ArrayLike, labels: ArrayLike, eps: float = EPS) -> float:
    """Returns R(F) minus the mean over samples of the coding rate of their class, in nats.

    R(Z) = 1/2 ln det(I + Z'Z / (n eps)) for n rows; features are centred once, by their total mean, and the rates of
    the classes are weighted by their shares n_c / N, as in the paper. At least 0 up to numerical error, higher is
    better. It depends on the scale of the features, which are taken as they are: it compares backbones on one target,
    as far as their features have similar scales.

    Cost: O(N D min(N, D)) and, a class, O(n_c D min(n_c, D)).

    Args:
        features: (N, D).
        labels: Integers (N,).
        eps: Above 0, in squared units of the features.

    Raises:
        ValueError: The features are no finite matrix, the labels do not match or have fewer than two classes, or `eps`
            is not above 0.
    """
    spectrum = Spectrum.of(features)
    return transrate_from_spectrum(spectrum, check_labels(labels, spectrum.n), eps)


def transrate_from_spectrum(spectrum: Spectrum, codes: Integers, eps: float = EPS) -> float:
    """Returns TransRate of features that are decomposed and labels 0 ... C-1 that are checked."""
    if not eps > 0:
        raise ValueError(f"eps: {eps} is not above 0")
    mean = spectrum.features.mean(axis=0)
    within = 0.0
    for label in range(int(codes.max()) + 1):
        group = spectrum.features[codes == label] - mean
        within += len(group) * _coding_rate(group, eps) / spectrum.n
    return _total_coding_rate(spectrum, eps) - within


def _total_coding_rate(spectrum: Spectrum, eps: float) -> float:
    """Returns R of the centred features: ln det of a Gram matrix that is known but for the mean, a matrix of rank 1."""
    scale = spectrum.n * eps
    ones = spectrum.coordinates(np.ones((spectrum.n, 1)))[:, 0]
    # 1 - sum of a s / (1 + s), written so that nothing cancels where the features are far from the origin.
    share, sizes = ones**2 / spectrum.n, spectrum.values / scale
    left = max(0.0, 1.0 - float(share.sum())) + float((share / (1.0 + sizes)).sum())
    return 0.5 * float(np.log1p(sizes).sum() + np.log(left))


def _coding_rate(rows: FloatArray, eps: float) -> float:
    n, dim = rows.shape
    gram = rows.T @ rows if dim <= n else rows @ rows.T
    gram /= n * eps
    gram.flat[:: len(gram) + 1] += 1.0
    return float(np.log(np.diagonal(np.linalg.cholesky(gram))).sum())
