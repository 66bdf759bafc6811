"""kNN accuracy: whether images of one class lie next to each other among the features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbt.fit.inputs import ArrayLike, Floats, Integers, check_features, check_labels

NEIGHBOURS = 5
_BLOCK = 1024


def knn_accuracy(features: ArrayLike, labels: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Returns the leave-one-out accuracy of a cosine k-nearest-neighbour classifier on frozen features.

    Between 0 and 1, higher is better; its standard error is sqrt(p (1 - p) / N). Each of the k most similar other
    samples has a vote; between classes with equally many votes the one with the larger sum of similarities wins. A
    sample of zero length has similarity 0 to all others. The sample of a class that has only one is always wrong.

    Cost: O(N^2 D), in blocks of 1024 samples.

    Args:
        features: (N, D).
        labels: Integers (N,).
        k: Neighbours, 1 or more; N - 1 where there are fewer.

    Raises:
        ValueError: The features are no finite matrix, the labels do not match or have fewer than two classes, or k is
            below 1.
    """
    matrix = check_features(features)
    return knn_accuracy_of(matrix, check_labels(labels, len(matrix)), k)


def knn_accuracy_of(features: Floats, codes: Integers, k: int = NEIGHBOURS) -> float:
    """Returns the accuracy for checked features and labels 0 ... C-1."""
    if k < 1:
        raise ValueError(f"k: {k} is not 1 or more")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    # In single precision, at half the time: what it rounds away, 1e-7, can only decide ties.
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0).astype(np.float32)
    k = min(k, len(units) - 1)
    one_hot = np.eye(int(codes.max()) + 1)[codes]
    right = 0
    for start in range(0, len(units), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(units)))
        right += int((_vote(units, one_hot, rows, k) == codes[rows]).sum())
    return right / len(units)


def _vote(units: npt.NDArray[np.float32], one_hot: Floats, rows: slice, k: int) -> Integers:
    """Returns the class that the neighbours of some samples vote for."""
    similarity = units[rows] @ units.T
    similarity[np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)] = -np.inf
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    classes = one_hot[nearest]
    near = np.take_along_axis(similarity, nearest, axis=1)
    # A vote weighs more than all similarities together, which lie between -k and k.
    votes = classes.sum(axis=1) * (2.0 * k + 1.0) + np.einsum("nk,nkc->nc", near, classes)
    votes[classes.sum(axis=1) == 0] = -np.inf
    return np.asarray(votes.argmax(axis=1), dtype=np.int64)
