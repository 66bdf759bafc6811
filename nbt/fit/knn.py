"""kNN accuracy: how often the nearest neighbours among the features belong to the same class."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nbt.fit.validation import ArrayLike, FloatArray, IntArray, check_features, check_labels

NEIGHBOURS = 5
_BLOCK_ROWS = 1024

Float32Array: TypeAlias = npt.NDArray[np.float32]


def knn_accuracy(features: ArrayLike, labels: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Returns the leave-one-out accuracy of a cosine k-nearest-neighbour classifier on frozen features.

    The range is 0 to 1; higher is better; the standard error is sqrt(p (1 - p) / N). Each of the k most similar other
    samples has one vote; ties are decided by the larger sum of similarities, then by the order of the labels. A zero
    vector has similarity 0 to all samples. The only sample of a class is always misclassified.

    Similarities are computed in single precision, which takes half the time. To keep rounding errors small relative to
    the differences between samples, the directions are centred first.

    Cost: O(N^2 D / 2), in blocks of 1024 x 1024 samples.

    Args:
        features: (N, D).
        labels: Integers (N,).
        k: Number of neighbours, 1 or more; at most N - 1 are used.

    Raises:
        ValueError: The features are not a finite matrix, the labels do not match them, there are fewer than two
            classes, or k is below 1.
    """
    matrix = check_features(features)
    return knn_accuracy_unchecked(matrix, check_labels(labels, len(matrix)), k)


def knn_accuracy_unchecked(features: FloatArray, codes: IntArray, k: int = NEIGHBOURS) -> float:
    """Returns the accuracy for validated features and labels 0 ... C-1; see `knn_accuracy`."""
    if k < 1:
        raise ValueError(f"k: {k} is not 1 or more")
    k = min(k, len(features) - 1)
    nearest, similarities = _nearest_neighbours(*_centred_cosine_terms(features), k)
    classes = int(codes.max()) + 1
    cells = np.arange(len(codes))[:, None] * classes + codes[nearest]
    # A vote outweighs the sum of all similarities, each of which is within +-4.
    votes = np.bincount(
        cells.ravel(), (similarities.astype(np.float64) + 16.0 * (k + 1)).ravel(), minlength=len(codes) * classes
    )
    return float((votes.reshape(len(codes), classes).argmax(axis=1) == codes).mean())


def _centred_cosine_terms(features: FloatArray) -> tuple[Float32Array, Float32Array]:
    """Returns vectors c (N, D) and terms h (N,) such that c_i c_j + h_j is the cosine up to a term of i.

    The omitted term depends on i only, and does not change the order of its neighbours.

    With unit vectors u = c + m, m their mean, u_i u_j = c_i c_j + c_j m + (c_i m + m m); h_j is c_j m without the part
    that is equal for all j, which for unit vectors is -c_j c_j / 2.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    mean = units.mean(axis=0)
    units -= mean
    terms = units @ mean - (1.0 - mean @ mean) / 2.0
    return units.astype(np.float32), terms.astype(np.float32)


def _nearest_neighbours(vectors: Float32Array, terms: Float32Array, k: int) -> tuple[IntArray, Float32Array]:
    """Returns the k other samples with the largest c_i c_j + h_j, and these values, (N, k), unordered."""
    neighbours = np.zeros((len(vectors), k), dtype=np.int64)
    similarities = np.full((len(vectors), k), -np.inf, dtype=np.float32)

    def update_nearest(first_row: int, values: Float32Array, first_column: int) -> None:
        """Updates the neighbours of a block of samples (rows) with the values of another block (columns)."""
        rows = slice(first_row, first_row + len(values))
        best = np.argpartition(values, -k, axis=1)[:, -k:] if values.shape[1] > k else _all_columns(values)
        candidates = np.hstack([similarities[rows], np.take_along_axis(values, best, axis=1)])
        selected = np.argpartition(candidates, -k, axis=1)[:, -k:]
        similarities[rows] = np.take_along_axis(candidates, selected, axis=1)
        neighbours[rows] = np.take_along_axis(np.hstack([neighbours[rows], best + first_column]), selected, axis=1)

    for i in range(0, len(vectors), _BLOCK_ROWS):
        for j in range(i, len(vectors), _BLOCK_ROWS):
            products = vectors[i : i + _BLOCK_ROWS] @ vectors[j : j + _BLOCK_ROWS].T
            if i == j:
                np.fill_diagonal(products, -np.inf)
            else:
                update_nearest(j, products.T + terms[i : i + _BLOCK_ROWS], i)
            products += terms[j : j + _BLOCK_ROWS]
            update_nearest(i, products, j)
    return neighbours, similarities


def _all_columns(values: Float32Array) -> IntArray:
    return np.broadcast_to(np.arange(values.shape[1]), values.shape)
