"""Similarity of source and target on a scale from 0 to 1 that does not depend on the scale of the features.

Where the class means of the source are known, it is that of Cui et al. 2018 (arXiv 1806.06193) with a distance that is
relative to the distances between the classes of the source; otherwise it is the share of the labels' entropy that the
classifier of the source explains (LEEP, Nguyen et al. 2020, arXiv 2002.12462).
"""

from __future__ import annotations

import numpy as np

from nbt.fit.emd import GAMMA
from nbt.fit.leep import leep
from nbt.fit.validation import ArrayLike, FloatArray, check_counts, check_features, check_labels


def relative_emd_similarity(similarity: float, source_means: ArrayLike, source_counts: ArrayLike) -> float:
    """Returns exp(-EMD / d), d the mean distance between the class means of two images of different source classes.

    1 means equal distributions of class means; a target whose distance from the source equals d has .37.

    Args:
        similarity: `nbt.fit.emd_similarity` of source and target, 0 ... 1, with the default gamma.
        source_means: Mean features of each source class, (C_s, D).
        source_counts: Number of images per source class, (C_s,), 0 or more.

    Raises:
        ValueError: The means or counts are invalid, or all images of the source have one class mean.
    """
    from scipy.spatial.distance import cdist

    means = check_features(source_means, "source_means")
    counts = check_counts(source_counts, len(means), "source_counts")
    shares: FloatArray = counts / counts.sum()
    total = float(shares @ cdist(means, means) @ shares)
    if not total > 0:
        raise ValueError("source_means: all images have one class mean, so distances have no scale")
    distance = total / (1.0 - float(shares @ shares))
    return float(similarity ** (1.0 / (GAMMA * distance)))


def label_similarity(source_probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns 1 + LEEP / H(Y), the share of the labels' entropy H(Y) that the source's classes explain.

    0 means that the outputs of the source classifier are independent of the labels, 1 that they determine them. It is
    biased upwards if there are few samples per source class.

    Cost: O(N C_s C).

    Args:
        source_probs: Probabilities of the source's classes, (N, C_s); rows sum to one.
        labels: Integers (N,).

    Raises:
        ValueError: As in `nbt.fit.leep`.
    """
    codes = check_labels(labels, None)
    shares = np.bincount(codes) / len(codes)
    return float(1.0 - leep(source_probs, codes) / (shares @ np.log(shares)))
