"""kNN accuracy: whether images of one class lie next to each other among the features."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nbt.fit.validation import ArrayLike, FloatArray, Integers, check_features, check_labels

NEIGHBOURS = 5
_BLOCK_ROWS = 1024

Float32Array: TypeAlias = npt.NDArray[np.float32]


def knn_accuracy(features: ArrayLike, labels: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Returns the leave-one-out accuracy of a cosine k-nearest-neighbour classifier on frozen features.

    Between 0 and 1, higher is better; its standard error is sqrt(p (1 - p) / N). Each of the k most similar other
    samples has a vote; between classes with equally many votes the one with the larger sum of similarities wins, and
    where these are equal, too, the first in the order of labels. A sample of zero length has similarity 0 to all
    others. The sample of a class that has only one is always wrong.

    The similarities alone are computed in single precision, which takes half the time: of directions around their
    mean, so that what is rounded is the difference between samples, however small, and not what they share.

    Cost: O(N^2 D / 2), in blocks of 1024 x 1024 samples.

    Args:
        features: (N, D).
        labels: Integers (N,).
        k: Neighbours, 1 or more; N - 1 where there are fewer.

    Raises:
        ValueError: The features are no finite matrix, the labels do not match or have fewer than two classes, or k is
            below 1.
    """
    matrix = check_features(features)
    return knn_accuracy_of_codes(matrix, check_labels(labels, len(matrix)), k)


def knn_accuracy_of_codes(features: FloatArray, codes: Integers, k: int = NEIGHBOURS) -> float:
    """Returns the accuracy for checked features and labels 0 ... C-1."""
    if k < 1:
        raise ValueError(f"k: {k} is not 1 or more")
    k = min(k, len(features) - 1)
    nearest, similarities = _nearest_neighbours(*_centred_cosine_terms(features), k)
    classes = int(codes.max()) + 1
    cells = np.arange(len(codes))[:, None] * classes + codes[nearest]
    # A vote weighs more than all similarities together, of which none is beyond +-4.
    votes = np.bincount(
        cells.ravel(), (similarities.astype(np.float64) + 16.0 * (k + 1)).ravel(), minlength=len(codes) * classes
    )
    return float((votes.reshape(len(codes), classes).argmax(axis=1) == codes).mean())


def _centred_cosine_terms(features: FloatArray) -> tuple[Float32Array, Float32Array]:
    """Returns vectors c (N, D) and terms h (N,) of which c_i c_j + h_j is the cosine of i and j but for a term of i.

    With unit vectors u = c + m, m their mean, u_i u_j = c_i c_j + c_j m + (c_i m + m m); h_j is c_j m without what is
    the same for every j, of unit vectors -c_j c_j / 2.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    mean = units.mean(axis=0)
    units -= mean
    terms = units @ mean - (1.0 - mean @ mean) / 2.0
    return units.astype(np.float32), terms.astype(np.float32)


def _nearest_neighbours(vectors: Float32Array, terms: Float32Array, k: int) -> tuple[Integers, Float32Array]:
    """Returns the k other samples with the largest c_i c_j + h_j, and these values, (N, k); in no order."""
    found = np.zeros((len(vectors), k), dtype=np.int64)
    similarities = np.full((len(vectors), k), -np.inf, dtype=np.float32)

    def update_nearest(start: int, values: Float32Array, first: int) -> None:
        """Takes into account the values of some samples from `start` with others from `first`."""
        rows = slice(start, start + len(values))
        best = np.argpartition(values, -k, axis=1)[:, -k:] if values.shape[1] > k else _all_columns(values)
        both = np.hstack([similarities[rows], np.take_along_axis(values, best, axis=1)])
        among = np.argpartition(both, -k, axis=1)[:, -k:]
        similarities[rows] = np.take_along_axis(both, among, axis=1)
        found[rows] = np.take_along_axis(np.hstack([found[rows], best + first]), among, axis=1)

    for i in range(0, len(vectors), _BLOCK_ROWS):
        for j in range(i, len(vectors), _BLOCK_ROWS):
            products = vectors[i : i + _BLOCK_ROWS] @ vectors[j : j + _BLOCK_ROWS].T
            if i == j:
                np.fill_diagonal(products, -np.inf)
            else:
                update_nearest(j, products.T + terms[i : i + _BLOCK_ROWS], i)
            products += terms[j : j + _BLOCK_ROWS]
            update_nearest(i, products, j)
    return found, similarities


def _all_columns(values: Float32Array) -> Integers:
    return np.broadcast_to(np.arange(values.shape[1]), values.shape)
