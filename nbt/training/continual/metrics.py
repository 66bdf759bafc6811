"""Metrics of a stream, from its accuracy matrix.

R[i, j] is the accuracy, 0 ... 1, on the images of task j + 1 after task i + 1. Average accuracy, backward and forward
transfer are those of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", arXiv 1706.08840;
forgetting is that of Chaudhry et al., "Riemannian Walk for Incremental Learning", arXiv 1801.10112. A stream that was
stopped has fewer rows than columns: then all are of the tasks learnt so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def average_accuracy(matrix: Matrix) -> float:
    """Returns the mean accuracy on the tasks learnt, after the last of them, 0 ... 1.

    Args:
        matrix: R, (k, T), k of 1 ... T.
    """
    k = len(matrix)
    return float(matrix[-1, :k].mean())


def forgetting(matrix: Matrix) -> float:
    """Returns how far the past tasks fell from their best: mean over j < k of max over l < k of R[l, j] - R[k, j].

    -1 ... 1, 0 of a single task; below 0 where learning on helped all of them.

    Args:
        matrix: R, (k, T).
    """
    k = len(matrix)
    if k == 1:
        return 0.0
    past = matrix[:, : k - 1]
    return float((past[:-1].max(axis=0) - past[-1]).mean())


def backward_transfer(matrix: Matrix) -> float:
    """Returns what later tasks did to past ones: mean over j < k of R[k, j] - R[j, j]; 0 of a single task.

    Args:
        matrix: R, (k, T).
    """
    k = len(matrix)
    if k == 1:
        return 0.0
    return float((matrix[-1, : k - 1] - np.diagonal(matrix)[: k - 1]).mean())


def forward_transfer(matrix: Matrix, untrained: Sequence[float]) -> float:
    """Returns what past tasks did for one to come: mean over j > 1 of R[j - 1, j] - b[j].

    Args:
        matrix: R, (k, T), T of 2 or more.
        untrained: b, the accuracy on every task before the first, (T,).
    """
    k, tasks = matrix.shape
    reached = min(k, tasks - 1)
    ahead = np.diagonal(matrix, offset=1)[:reached]
    return float((ahead - np.asarray(untrained, dtype=np.float64)[1 : reached + 1]).mean())
