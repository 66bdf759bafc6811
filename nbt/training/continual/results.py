"""What a stream of tasks gives: plain data, without torch."""

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
    """One task of a stream, after it was learnt.

    Attributes:
        task: Its number, 1 ... T.
        classes: Its classes, as labels of the dataset.
        n_train: Images that were trained on: the task's own, or of joint training all so far.
        train_loss: Mean loss of the last epoch, as the recipe has it; of a probe half the squared error of one-hot
            targets. Infinite where nothing was trained.
        accuracies: Accuracy on the evaluation images of every task, 0 ... 1, (T,).
        seconds: Time that the task took (since a resume), evaluation and curvature included.
        diverged: The loss was not finite, in this task or in one that it builds on: the accuracies are 0.
    """

    task: int
    classes: tuple[int, ...]
    n_train: int
    train_loss: float
    accuracies: tuple[float, ...]
    seconds: float
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types; a loss that is not finite becomes None."""
        values = dataclasses.asdict(self) | {"classes": list(self.classes), "accuracies": list(self.accuracies)}
        return values | {"train_loss": self.train_loss if math.isfinite(self.train_loss) else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskScore:
        """Reads what `to_dict` wrote; a loss of None becomes infinite."""
        loss = math.inf if values["train_loss"] is None else values["train_loss"]
        sequences = {name: tuple(values[name]) for name in ("classes", "accuracies")}
        return cls(**{**values, **sequences, "train_loss": loss})


@dataclass(frozen=True)
class ContinualResult:
    """A stream, as far as it was run.

    Attributes:
        settings: Of the stream.
        seed: Of the stream.
        evaluate_on: "test" or "val".
        class_order: Names of the classes in the order in which they came.
        scores: One a task, in order.
        untrained: Accuracy on every task before the first: pretrained weights and a fresh head, (T,). None in a
            class-incremental stream, where no class is known then.
    """

    settings: ContinualSettings
    seed: int
    evaluate_on: str
    class_order: tuple[str, ...]
    scores: tuple[TaskScore, ...]
    untrained: tuple[float, ...] | None = None

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """Accuracy after task i on task j, (k, T); k is T where the stream was not stopped."""
        return np.array([score.accuracies for score in self.scores], dtype=np.float64)

    @property
    def average_accuracy(self) -> float:
        """See `continual_metrics.average_accuracy`."""
        return metrics.average_accuracy(self.matrix)

    @property
    def forgetting(self) -> float:
        """See `continual_metrics.forgetting`."""
        return metrics.forgetting(self.matrix)

    @property
    def backward_transfer(self) -> float:
        """See `continual_metrics.backward_transfer`."""
        return metrics.backward_transfer(self.matrix)

    @property
    def forward_transfer(self) -> float | None:
        """See `continual_metrics.forward_transfer`; None in a class-incremental stream."""
        return None if self.untrained is None else metrics.forward_transfer(self.matrix, self.untrained)

    @property
    def diverged(self) -> bool:
        """Whether the loss left the finite numbers in some task."""
        return any(score.diverged for score in self.scores)

    @property
    def seconds(self) -> float:
        """Time of all tasks."""
        return sum(score.seconds for score in self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types, the metrics included."""
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
        """Reads what `to_dict` wrote; the metrics follow from the rest."""
        untrained = values["untrained"]
        return cls(
            settings=ContinualSettings.from_dict(values["settings"]),
            seed=values["seed"],
            evaluate_on=values["evaluate_on"],
            class_order=tuple(values["class_order"]),
            scores=tuple(TaskScore.from_dict(score) for score in values["scores"]),
            untrained=None if untrained is None else tuple(untrained),
        )
