"""Computation of the metrics that `nbt.metrics` declares.

All are functions of the labels and the predicted probabilities. They agree with those of scikit-learn, whose version of
the AUROC takes longer than a short epoch: .5 s for 5,000 images and 200 classes; this one takes .01 s.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a classifier.

    Attributes:
        labels: True classes, int64 (n,), n >= 1.
        log_probabilities: Natural logarithms of the predicted probabilities, float64 (n, C).
        index: Indices of the images in the task, int32 (n,); empty where they are unknown.
    """

    labels: npt.NDArray[np.int64]
    log_probabilities: npt.NDArray[np.float64]
    index: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Number of images of each class, (C,)."""
        return np.bincount(self.labels, minlength=self.log_probabilities.shape[1])

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The classes with the highest probability, (n,)."""
        return np.asarray(self.log_probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def correct_counts(self) -> npt.NDArray[np.int64]:
        """Number of correctly classified images of each class, (C,)."""
        return np.bincount(self.labels[self.predicted == self.labels], minlength=len(self.class_counts))

    def to_bytes(self) -> bytes:
        """Returns the predictions as a compressed npz file; see `from_bytes`.

        The logarithms are stored as float32, which changes no predicted class. The ties of float16 change the class of
        up to .25 % of the images of a task with 200 classes; the accuracy would differ from the one reported.
        """
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            index=self.index.astype(np.int32),
            labels=self.labels.astype(np.int32),
            log_probabilities=self.log_probabilities.astype(np.float32),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Predictions:
        """Returns the predictions of `to_bytes`.

        Raises:
            ValueError: The content is damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                labels, scores = arrays["labels"].astype(np.int64), arrays["log_probabilities"].astype(np.float64)
                return cls(labels, scores, arrays["index"])
        except (BadZipFile, EOFError, KeyError, OSError, ValueError, zlib.error) as error:
            raise ValueError(f"the stored predictions are damaged: {error}") from error


def accuracy(predictions: Predictions) -> float:
    """Returns the share of correctly classified images."""
    return float(np.mean(predictions.predicted == predictions.labels))


def balanced_accuracy(predictions: Predictions) -> float:
    """Returns the mean recall over the classes of the images."""
    present = predictions.class_counts > 0
    return float(np.mean(predictions.correct_counts[present] / predictions.class_counts[present]))


def macro_f1(predictions: Predictions) -> float:
    """Returns the mean F1 score over the classes of the images and the predicted classes."""
    total = predictions.class_counts + np.bincount(predictions.predicted, minlength=len(predictions.class_counts))
    return float(np.mean(2.0 * predictions.correct_counts[total > 0] / total[total > 0]))


def auroc(predictions: Predictions) -> float | None:
    """Returns the mean area under the ROC curve, one class against the rest, over the classes of the images.

    The area is the probability that an image of the class has a higher probability of the class than another image,
    with ties counted as one half (Hanley and McNeil 1982). None if all images belong to one class.
    """
    labels, counts, n = predictions.labels, predictions.class_counts, len(predictions.labels)
    n_positive = counts[counts > 0]
    if len(n_positive) < 2:
        return None
    grouped = np.argsort(labels, kind="stable")
    groups = np.split(predictions.log_probabilities[grouped, labels[grouped]], np.cumsum(counts)[:-1])
    # For each class: how many images are below each of its own, plus how many are below or equal.
    ranks = [
        sum(column.searchsorted(group, side).sum() for side in ("left", "right"))
        for column, group in zip(np.sort(predictions.log_probabilities.T, axis=1), groups, strict=True)
        if len(group)
    ]
    # Pairs of two images of the class give n_positive**2 of this sum.
    areas = 0.5 * (np.array(ranks) - n_positive**2) / (n_positive * (n - n_positive))
    return float(areas.mean())


def log_loss(predictions: Predictions) -> float:
    """Returns the mean cross-entropy in nats."""
    return float(-predictions.log_probabilities[np.arange(len(predictions.labels)), predictions.labels].mean())


COMPUTE: Mapping[str, Callable[[Predictions], float | None]] = {
    metric.__name__: metric for metric in (accuracy, balanced_accuracy, macro_f1, auroc, log_loss)
}
"""Name of each of `nbt.metrics.METRICS` -> function that returns its value, None where it is not defined."""

OTHER_METRICS = tuple(name for name in COMPUTE if name not in ("accuracy", "log_loss"))
"""The metrics that `nbt.training.results.EpochResult` stores beside accuracy and log loss."""
