"""Validation of the measures' arguments: shapes, labels, finite values and the number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

ArrayLike: TypeAlias = "npt.ArrayLike | torch.Tensor"
FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

_SUM_TOLERANCE = 1e-3


def check_features(features: ArrayLike, name: str = "features") -> FloatArray:
    """Returns features as a float64 array (N, D), which may share memory with the argument.

    Raises:
        ValueError: The argument is not a matrix, has no row or column, or contains NaN or infinite values.
    """
    array = _to_float_array(features, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected a matrix (samples, features), got shape {array.shape}")
    not_finite = ~np.isfinite(array)
    if not_finite.any():
        row, column = (int(i) for i in np.argwhere(not_finite)[0])
        raise ValueError(
            f"{name}: {int(not_finite.sum())} values are NaN or infinite, the first in row {row}, column {column}"
        )
    return array


def check_labels(
    labels: ArrayLike, n: int | None, name: str = "labels", *, per_class: int = 1, classes: int = 2
) -> IntArray:
    """Returns labels as int64 (N,), renumbered 0 ... C-1 over the occurring classes in the order of their values.

    Classes without samples are thereby ignored.

    Args:
        labels: Integers (N,), of any values.
        n: Expected number of labels N; None for any number.
        name: Name of the argument in messages.
        per_class: Minimum number of samples per class.
        classes: Minimum number of classes.

    Raises:
        ValueError: The labels are of another length or type, or there are too few classes or too few samples of a
            class.
    """
    array = _to_numpy(labels, name)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected one label per sample, got shape {array.shape}")
    if n is not None and len(array) != n:
        raise ValueError(f"{name}: {len(array)} labels for {n} samples")
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and bool(np.all(array == np.floor(array)))):
        raise ValueError(f"{name}: expected whole numbers, got {array.dtype}")
    values, codes = np.unique(array, return_inverse=True)
    if len(values) < classes:
        raise ValueError(f"{name}: at least {classes} classes are needed, got {len(values)}")
    counts = np.bincount(codes)
    if counts.min() < per_class:
        rare = values[int(counts.argmin())]
        raise ValueError(
            f"{name}: every class needs at least {per_class} samples, class {rare} has {int(counts.min())}"
        )
    return np.asarray(codes, dtype=np.int64).reshape(-1)


def check_probabilities(probabilities: ArrayLike, name: str = "source_probs") -> FloatArray:
    """Returns probabilities as a float64 array (N, C_s) whose rows sum to one.

    Raises:
        ValueError: The argument is not a finite matrix, has negative values, or has a row that does not sum to one
            (within 1e-3, the error of half precision).
    """
    array = check_features(probabilities, name)
    if array.min() < 0:
        raise ValueError(f"{name}: probabilities must be 0 or more, the smallest is {array.min():.3g}")
    sums = array.sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise ValueError(f"{name}: every row must sum to one, row {worst} sums to {sums[worst]:.6g}")
    return np.asarray(array / sums[:, None])


def check_counts(counts: ArrayLike, n: int, name: str) -> FloatArray:
    """Returns numbers of images per class as float64 (C,).

    Args:
        counts: Number of images per class, (C,).
        n: Expected number of classes C.
        name: Name of the argument in messages.

    Raises:
        ValueError: There is not one number per class, or a number is negative or not finite, or all are 0.
    """
    array = _to_float_array(counts, name)
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"{name}: expected one number for each of {n} classes, got shape {array.shape}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.sum() > 0):
        raise ValueError(f"{name}: images per class must be finite, 0 or more and not all 0")
    return array


def _to_float_array(values: ArrayLike, name: str) -> FloatArray:
    array = _to_numpy(values, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers, got {array.dtype}")
    return array.astype(np.float64, copy=False)


def _to_numpy(values: ArrayLike, name: str) -> npt.NDArray[np.generic]:
    """Returns a NumPy view or copy; tensors are detached and moved to the CPU."""
    detach = getattr(values, "detach", None)
    if detach is not None:
        tensor = detach().cpu()
        values = tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got rows of different lengths") from error
