"""Specification and results of trials, as plain data that processes exchange."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.metrics import DEFAULT_METRIC, METRICS
from nbt.settings import TransferSettings

if TYPE_CHECKING:
    from nbt.training.metrics import Predictions


@dataclass(frozen=True)
class EpochResult:
    """One epoch of one trial.

    Attributes:
        epoch: 1 ... `settings.epochs`.
        train_loss: Mean training loss of the epoch (with smoothing and mixup, without decay), in nats.
        val_loss: Mean cross-entropy on the validation images, in nats; None without validation images.
        val_accuracy: Share of validation images that are classified correctly, 0 ... 1; None without validation images.
            In a stream of tasks, the mean over tasks at the last epoch and None before.
        seconds: Wall-clock time of the epoch, validation included.
        diverged: Whether the loss was not finite; the trial then ends with the worst accuracy, which is a valid result.
        watched_accuracy: Share of the task's monitored images (`Task.watched`) that are classified correctly, recorded
            for benchmarks only; None without such images. Its time is not part of `seconds`.
        metrics: Name -> value of the other metrics on the validation images, see `nbt.training.metrics.OTHER_METRICS`;
            None where one is not defined. Empty without validation images, in streams, and in records of version 0.1.
        watched_metrics: The same, and "log_loss", on the task's monitored images.
        cpu_seconds: CPU time of the epoch in the process of the worker, summed over its threads; unlike `seconds`, it
            hardly depends on what else the machine does. Kept in recorded tables only; None elsewhere.
    """

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    diverged: bool = False
    watched_accuracy: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    watched_metrics: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    cpu_seconds: float | None = field(default=None, compare=False)  # studies do not store it

    def __deepcopy__(self, memo: object) -> EpochResult:
        """Returns the result itself, which nothing changes: Optuna copies trials with their curves."""
        return self

    def value(self, metric: str) -> float | None:
        """Returns the value of a metric on the validation images; None if it is not known or not defined.

        Args:
            metric: One of `nbt.metrics.METRICS`.
        """
        known = {"accuracy": self.val_accuracy, "log_loss": self.val_loss}
        return known[metric] if metric in known else self.metrics.get(metric)

    def score(self, metric: str) -> float | None:
        """Returns the score of a metric, 0 ... 1, see `nbt.metrics`; 0 if the training diverged, None without a value.

        Args:
            metric: One of `nbt.metrics.METRICS`.
        """
        value = self.value(metric)
        return 0.0 if self.diverged else None if value is None else METRICS[metric].score(value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in JSON types; a loss that is not finite is None, missing optional values are absent."""
        values = dataclasses.asdict(self)
        for name in ("watched_accuracy", "metrics", "watched_metrics", "cpu_seconds"):
            if not values[name] and values[name] != 0:
                del values[name]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochResult:
        """Builds a result from the output of `to_dict`; a training loss of None becomes infinite."""
        loss = values["train_loss"]
        return cls(**{**values, "train_loss": math.inf if loss is None else loss})


def last_score(curve: Sequence[EpochResult], metric: str) -> float | None:
    """Returns the score of a metric after the last epoch of a learning curve, the value of a full-length training.

    The best epoch is not used: without validation images, as in the training of the exported model, it is unknown.

    Args:
        curve: Results of the epochs.
        metric: One of `nbt.metrics.METRICS`.

    Returns:
        The score, 0 ... 1; 0 if the training diverged, None without epochs or without a value of the metric.
    """
    return curve[-1].score(metric) if curve else None


def last_accuracy(curve: Sequence[EpochResult]) -> float | None:
    """Returns the validation accuracy after the last epoch of a learning curve, see `last_score`."""
    return last_score(curve, DEFAULT_METRIC)


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Specification of one training run, which an engine sends to a worker.

    Attributes:
        key: Name of the run, unique in its study: "trial-0012", "final-0012-seed-1", "retrain-recommended".
        settings: The repaired recipe.
        seed: Seed of head, order, augmentation and dropout.
        split_seed: Seed of another train/validation split; None uses the split of the task.
        fold: Fold of `split_seed`, see `nbt.data.splits.make_split`.
        max_train_images: Number of training images to use, with the same share of the validation images, to measure
            the duration of an epoch; None uses all.
        train_on_all: Whether to train on training and validation images.
        evaluate_test: Whether to evaluate the model on the test images, once, at the end.
        checkpoint: File to write the state to and to resume from; None writes no checkpoint.
        known_epochs: Number of epochs whose results the driver already has. On a resume, later epochs of the checkpoint
            are reported again, because a killed process may not have stored them. If None, none is reported again.
        export: Folder to write the model to, for `nbt predict`; None writes no model.
        keep_predictions: Whether the outcome has predictions.
        measure_source: Whether the outcome has the source accuracy, if the task has images of its source.
    """

    key: str
    settings: TransferSettings
    seed: int = 0
    split_seed: int | None = None
    fold: int = 0
    max_train_images: int | None = None
    train_on_all: bool = False
    evaluate_test: bool = False
    checkpoint: Path | None = None
    known_epochs: int | None = None
    export: Path | None = None
    keep_predictions: bool = False
    measure_source: bool = False


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """Outcome of a run, which either finished, was stopped early (`stopped`) or failed (`error`).

    Attributes:
        curve: Results of all epochs, including those before a resume.
        stopped: The driver's reason to stop the run early, else None.
        error: One line about the exception that ended the run, else None.
        traceback: The traceback of that exception.
        out_of_memory: Whether the device ran out of memory.
        test_accuracy: Accuracy on the test images, 0 ... 1, if requested; 0 if the training diverged.
        test_loss: Mean cross-entropy on the test images in nats, if requested; None if the training diverged.
        predictions: Predictions of the test images if they were evaluated, else of the validation images after the last
            epoch; None if they were not requested, of a stream of tasks, and without a finished, finite training.
        source_accuracy: Accuracy of the body with the unchanged classifier of the source, 0 ... 1, if requested; 0 if
            the training diverged, None if the task has no images of its source, or the run was stopped.
        facts: Node, device, gpu (its name), gpu_index, worker, precision, set-up seconds and memory of the run, and
            what its optimiser trained.
    """

    curve: tuple[EpochResult, ...] = ()
    stopped: str | None = None
    error: str | None = None
    traceback: str | None = None
    out_of_memory: bool = False
    test_accuracy: float | None = None
    test_loss: float | None = None
    predictions: Predictions | None = None
    source_accuracy: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether the loss was not finite."""
        return bool(self.curve) and self.curve[-1].diverged
