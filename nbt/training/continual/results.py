"""Results of a stream of tasks as plain data; independent of PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbt.settings.continual import ContinualSettings
from nbt.training.continual import metrics


@dataclass(frozen=True)
class TaskScore:
    """Result of one task of a stream, after training on it.

    Attributes:
        task: Number of the task, 1 ... T.
        classes: Classes of the task, as labels of the dataset.
        n_train: Number of training images: those of the task, or all images so far with joint training.
        train_loss: Mean loss of the last epoch with the loss of the recipe; for a probe, half the squared error of
            one-hot targets. Infinite if the task was not trained.
        accuracies: Accuracy on the evaluation images of every task, 0 ... 1, (T,).
        seconds: Wall-clock time of the task (since a resume), evaluation and curvature included.
        diverged: Whether the loss of this task, or of a task on which it builds, was not finite; the accuracies are
            then 0.
    """

    task: int
    classes: tuple[int, ...]
    n_train: int
    train_loss: float
    accuracies: tuple[float, ...]
    seconds: float
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the score in JSON types; a loss that is not finite becomes None."""
        values = dataclasses.asdict(self) | {"classes": list(self.classes), "accuracies": list(self.accuracies)}
        return values | {"train_loss": self.train_loss if math.isfinite(self.train_loss) else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskScore:
        """Builds a score from the output of `to_dict`; a loss of None becomes infinite."""
        loss = math.inf if values["train_loss"] is None else values["train_loss"]
        sequences = {name: tuple(values[name]) for name in ("classes", "accuracies")}
        return cls(**{**values, **sequences, "train_loss": loss})


@dataclass(frozen=True)
class ContinualResult:
    """Result of a stream, up to the last trained task.

    Attributes:
        settings: Settings of the stream.
        seed: Seed of the stream.
        evaluate_on: Images that give the accuracies, "test" or "val".
        class_order: Names of the classes in the order of the stream.
        scores: One score per task, in order.
        untrained: Accuracy on every task before training, with pretrained weights and a new head, (T,). None for a
            class-incremental stream, where no class is known at that point.
    """

    settings: ContinualSettings
    seed: int
    evaluate_on: str
    class_order: tuple[str, ...]
    scores: tuple[TaskScore, ...]
    untrained: tuple[float, ...] | None = None

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The accuracies after task i on task j, (k, T); k is T unless the stream was stopped."""
        return np.array([score.accuracies for score in self.scores], dtype=np.float64)

    @property
    def average_accuracy(self) -> float:
        """See `nbt.training.continual.metrics.average_accuracy`."""
        return metrics.average_accuracy(self.matrix)

    @property
    def forgetting(self) -> float:
        """See `nbt.training.continual.metrics.forgetting`."""
        return metrics.forgetting(self.matrix)

    @property
    def backward_transfer(self) -> float:
        """See `nbt.training.continual.metrics.backward_transfer`."""
        return metrics.backward_transfer(self.matrix)

    @property
    def forward_transfer(self) -> float | None:
        """See `nbt.training.continual.metrics.forward_transfer`; None for a class-incremental stream."""
        return None if self.untrained is None else metrics.forward_transfer(self.matrix, self.untrained)

    @property
    def diverged(self) -> bool:
        """Whether the loss of any task was not finite."""
        return any(score.diverged for score in self.scores)

    @property
    def seconds(self) -> float:
        """The wall-clock time of all tasks."""
        return sum(score.seconds for score in self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result in JSON types, including the metrics."""
        return {
            "settings": self.settings.to_dict(),
            "seed": self.seed,
            "evaluate_on": self.evaluate_on,
            "class_order": list(self.class_order),
            "scores": [score.to_dict() for score in self.scores],
            "untrained": None if self.untrained is None else list(self.untrained),
            "matrix": self.matrix.tolist(),
            "average_accuracy": self.average_accuracy,
            "forgetting": self.forgetting,
            "backward_transfer": self.backward_transfer,
            "forward_transfer": self.forward_transfer,
            "diverged": self.diverged,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ContinualResult:
        """Builds a result from the output of `to_dict`; the metrics are computed again."""
        untrained = values["untrained"]
        return cls(
            settings=ContinualSettings.from_dict(values["settings"]),
            seed=values["seed"],
            evaluate_on=values["evaluate_on"],
            class_order=tuple(values["class_order"]),
            scores=tuple(TaskScore.from_dict(score) for score in values["scores"]),
            untrained=None if untrained is None else tuple(untrained),
        )
