"""TransRate: the reduction in the coding rate of the features by the classes (Huang et al. 2022, arXiv 2106.09362)."""

from __future__ import annotations

import numpy as np

from nbt.fit.spectrum import Spectrum
from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_labels

EPS = 1e-4
"""Squared distortion of the coding rate; the paper's value."""


def transrate(features: ArrayLike, labels: ArrayLike, eps: float = EPS) -> float:
    """Returns R(F) minus the mean over samples of the coding rate of their class, in nats.

    R(Z) = 1/2 ln det(I + Z'Z / (n eps)) for n rows; features are centred once, by their total mean, and the rates of
    the classes are weighted by their shares n_c / N, as in the paper. The result is at least 0 up to numerical error;
    higher is better. It depends on the scale of the features, which are not rescaled: backbones can be compared on one
    target if their features have similar scales.

    Cost: O(N D min(N, D)), and O(n_c D min(n_c, D)) per class.

    Args:
        features: (N, D).
        labels: Integers (N,).
        eps: Squared distortion, above 0, in squared units of the features.

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, there are fewer than two
            classes, or `eps` is not above 0.
    """
    spectrum = Spectrum.of(features)
    return transrate_from_spectrum(spectrum, check_labels(labels, spectrum.n), eps)


def transrate_from_spectrum(spectrum: Spectrum, codes: IntArray, eps: float = EPS) -> float:
    """Returns TransRate for decomposed features and validated labels 0 ... C-1; see `transrate`."""
    if not eps > 0:
        raise ValueError(f"eps: {eps} is not above 0")
    mean = spectrum.features.mean(axis=0)
    within = 0.0
    for label in range(int(codes.max()) + 1):
        group = spectrum.features[codes == label] - mean
        within += len(group) * _coding_rate(group, eps) / spectrum.n
    return _total_coding_rate(spectrum, eps) - within


def _total_coding_rate(spectrum: Spectrum, eps: float) -> float:
    """Returns R of the centred features: the ln det of a known Gram matrix with a rank-1 correction for the mean."""
    scale = spectrum.n * eps
    ones = spectrum.coordinates(np.ones((spectrum.n, 1)))[:, 0]
    # Equals 1 - sum of a s / (1 + s), in a form without cancellation for features far from the origin.
    share, sizes = ones**2 / spectrum.n, spectrum.values / scale
    correction = max(0.0, 1.0 - float(share.sum())) + float((share / (1.0 + sizes)).sum())
    return 0.5 * float(np.log1p(sizes).sum() + np.log(correction))


def _coding_rate(rows: FloatArray, eps: float) -> float:
    n, dim = rows.shape
    gram = rows.T @ rows if dim <= n else rows @ rows.T
    gram /= n * eps
    gram.flat[:: len(gram) + 1] += 1.0
    return float(np.log(np.diagonal(np.linalg.cholesky(gram))).sum())
