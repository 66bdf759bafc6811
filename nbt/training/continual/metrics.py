"""Metrics of a stream, computed from its accuracy matrix.

R_ij is the accuracy, 0 ... 1, on the images of task j after training on task i; formulas count tasks from 1, as in the
papers, and `matrix[i - 1, j - 1]` holds R_ij. Average accuracy, backward and forward transfer are defined by Lopez-Paz
and Ranzato, "Gradient Episodic Memory for Continual Learning", arXiv 1706.08840; forgetting is defined by Chaudhry et
al., "Riemannian Walk for Incremental Learning", arXiv 1801.10112. The matrix of a stopped stream has fewer rows than
columns; the metrics then cover the k tasks trained so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def average_accuracy(matrix: Matrix) -> float:
    """Returns the mean accuracy on the k tasks trained so far, after the last of them, 0 ... 1.

    Args:
        matrix: R, (k, T), 1 <= k <= T.
    """
    k = len(matrix)
    return float(matrix[-1, :k].mean())


def forgetting(matrix: Matrix) -> float:
    """Returns the mean drop of past tasks from their best accuracy: mean over j < k of max_{l < k} R_lj - R_kj.

    The range is -1 ... 1; the value of a single task is 0. A negative value means that later tasks improved past ones.

    Args:
        matrix: R, (k, T).
    """
    k = len(matrix)
    if k == 1:
        return 0.0
    past = matrix[:, : k - 1]
    return float((past[:-1].max(axis=0) - past[-1]).mean())


def backward_transfer(matrix: Matrix) -> float:
    """Returns the mean effect of later tasks on past ones: mean over j < k of R_kj - R_jj.

    The range is -1 ... 1; the value of a single task is 0.

    Args:
        matrix: R, (k, T).
    """
    k = len(matrix)
    if k == 1:
        return 0.0
    return float((matrix[-1, : k - 1] - np.diagonal(matrix)[: k - 1]).mean())


def forward_transfer(matrix: Matrix, untrained: Sequence[float]) -> float:
    """Returns the mean effect of past tasks on the next one: mean over j > 1 of R_(j-1)j - b_j, -1 ... 1.

    Args:
        matrix: R, (k, T), T >= 2.
        untrained: b, the accuracy on every task before any training, (T,).
    """
    k, tasks = matrix.shape
    reached = min(k, tasks - 1)
    ahead = np.diagonal(matrix, offset=1)[:reached]
    return float((ahead - np.asarray(untrained, dtype=np.float64)[1 : reached + 1]).mean())
