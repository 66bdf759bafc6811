"""Learner: what every method of a stream can be asked, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbt.data.splits import Index
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.training.continual.scenarios import ContinualStage, predicted_outputs
from nbt.training.continual.unaugmented_inputs import EvaluationInputs
from nbt.training.results import EpochResult
from nbt.training.worker.context import WorkerContext


@dataclass(frozen=True, eq=False)
class TaskStream:
    """What all tasks of a stream share.

    Attributes:
        task: The dataset.
        settings: Of the stream.
        seed: Of the stream.
        stages: Its tasks.
        bench: Tools, one for the whole stream.
    """

    task: Task
    settings: ContinualSettings
    seed: int
    stages: tuple[ContinualStage, ...]
    context: WorkerContext

    @property
    def recipe(self) -> TransferSettings:
        """The repaired recipe."""
        return repair(self.settings.recipe)

    def train_images_up_to(self, number: int) -> Index:
        """Returns the training images of the tasks 1 ... `number`."""
        return np.sort(np.concatenate([stage.train for stage in self.stages[:number]]))


@dataclass(frozen=True)
class StageResult:
    """How the learning of a task ended: see `TaskScore`."""

    n_train: int
    train_loss: float
    diverged: bool = False


class Learner(ABC):
    """One method on one stream."""

    recovers_from_divergence = False
    """Whether a task after one that diverged starts afresh."""

    def __init__(self, stream: TaskStream, settings: TransferSettings) -> None:
        self.stream = stream
        self.model, self.frozen = stream.context.prepare_model(settings, derive_seed(stream.seed, "start"))
        self.model.eval()
        self.inputs = EvaluationInputs(stream.context, self.frozen)
        self.classify: Callable[[torch.Tensor, int], torch.Tensor] = self.model

    @abstractmethod
    def learn(
        self,
        stage: ContinualStage,
        on_epoch: Callable[[EpochResult], None],
        checkpoint: Path | None,
        checkpoint_seconds: float,
    ) -> StageResult:
        """Learns a task, after those before it."""

    @abstractmethod
    def consolidate(self, stage: ContinualStage) -> None:
        """Takes from a task that was learnt what later tasks need of it; after its evaluation."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns all that later tasks depend on, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the task at which `state_dict` was called."""

    def accuracies(self, after: int, role: str) -> tuple[float, ...]:
        """Returns the accuracy on every task, 0 ... 1, (T,).

        Args:
            after: Number of the last task that was learnt; 0 before the first.
            role: "test" or "val".
        """
        stages, scenario = self.stream.stages, self.stream.settings.scenario
        count = self.stream.task.n_classes
        found = []
        for stage in stages:
            outputs = predicted_outputs(stages, scenario, after, stage.number, count)
            # In a class-incremental stream nothing of a task to come can be right.
            known = bool(outputs[list(stage.classes)].any())
            found.append(self.inputs.accuracy(self.classify, stage.images(role), outputs) if known else 0.0)
        return tuple(found)
