"""Interface of the methods of continual learning, and their common code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbt.data.splits import Index
from nbt.models.backbone import Backbone
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings, repair
from nbt.settings.continual import ContinualSettings
from nbt.task.task import Task
from nbt.training.continual.scenarios import ContinualStage, predicted_outputs
from nbt.training.continual.unaugmented_inputs import EvaluationInputs
from nbt.training.results import EpochResult
from nbt.training.worker.context import WorkerContext
from nbt.transfer.linearize import FirstOrder


@dataclass(frozen=True, eq=False)
class TaskStream:
    """A stream of tasks with its settings and resources.

    Attributes:
        task: The task that is divided into stages: images, split and pretrained weights.
        settings: Settings of the stream.
        seed: Seed of the stream.
        stages: Stages of the stream, one per task.
        context: Worker context of the whole stream.
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
    """Result of the training on one stage; for the fields see `TaskScore`."""

    n_train: int
    train_loss: float
    diverged: bool = False


class Learner(ABC):
    """Base class of a method, applied to one stream.

    Args:
        stream: The stream.
        settings: Settings of the model: initial weights and frozen units.

    Attributes:
        stream: The stream.
        model: The model of the worker context, in its initial state until the first stage.
        frozen: Number of frozen units.
        inputs: Inputs of the first unit that trains, for evaluation.
        classify: Maps inputs and the number of their unit to logits.
    """

    recovers_from_divergence = False
    """Whether a task after a diverged one is trained; otherwise all later tasks count as diverged."""

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
        """Trains on a stage, after the stages before it.

        Args:
            stage: The stage.
            on_epoch: Called after every epoch.
            checkpoint: File of the checkpoint within the stage; None writes no checkpoint.
            checkpoint_seconds: Minimum time between two writes.
        """

    @abstractmethod
    def consolidate(self, stage: ContinualStage) -> None:
        """Stores the data of a trained stage that later stages need; called after its evaluation."""

    @abstractmethod
    def trained_model(self) -> Backbone | FirstOrder:
        """Returns the model after the last stage, which classifies among all classes."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the state on which later stages depend, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from the result of `state_dict`."""

    def accuracies(self, trained: int, role: str) -> tuple[float, ...]:
        """Returns the accuracy on every task, 0 ... 1, (T,).

        Args:
            trained: Number of the last trained task; 0 before the first.
            role: "test" or "val".
        """
        stages, scenario = self.stream.stages, self.stream.settings.scenario
        count = self.stream.task.n_classes
        accuracies = []
        for stage in stages:
            outputs = predicted_outputs(stages, scenario, trained, stage.number, count)
            # In a class-incremental stream, images of later tasks cannot be classified correctly.
            can_be_correct = bool(outputs[list(stage.classes)].any())
            accuracies.append(
                self.inputs.accuracy(self.classify, stage.images(role), outputs) if can_be_correct else 0.0
            )
        return tuple(accuracies)
