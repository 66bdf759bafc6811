"""Learner: what every method of a stream can be asked, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbt.settings import TransferSettings, repair
from nbt.task.splits import Index
from nbt.task.task import Task
from nbt.training.continual_settings import ContinualSettings
from nbt.training.plain_inputs import PlainInputs
from nbt.training.results import EpochResult
from nbt.training.scenarios import Part, predicted_outputs
from nbt.training.seeds import derive_seed
from nbt.training.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Stream:
    """What all tasks of a stream share.

    Attributes:
        task: The dataset.
        settings: Of the stream.
        seed: Of the stream.
        parts: Its tasks.
        bench: Tools, one for the whole stream.
    """

    task: Task
    settings: ContinualSettings
    seed: int
    parts: tuple[Part, ...]
    bench: Workbench

    @property
    def recipe(self) -> TransferSettings:
        """The repaired recipe."""
        return repair(self.settings.recipe)

    def images_so_far(self, number: int) -> Index:
        """Returns the training images of the tasks 1 ... `number`."""
        return np.sort(np.concatenate([part.train for part in self.parts[:number]]))


@dataclass(frozen=True)
class Learnt:
    """How the learning of a task ended: see `TaskScore`."""

    n_train: int
    train_loss: float
    diverged: bool = False


class Learner(ABC):
    """One method on one stream."""

    recovers = False
    """Whether a task after one that diverged starts afresh."""

    def __init__(self, stream: Stream, settings: TransferSettings) -> None:
        self.stream = stream
        self.model, self.frozen = stream.bench.prepare_model(settings, derive_seed(stream.seed, "start"))
        self.model.eval()
        self.inputs = PlainInputs(stream.bench, self.frozen)
        self.classify: Callable[[torch.Tensor, int], torch.Tensor] = self.model

    @abstractmethod
    def learn(
        self, part: Part, on_epoch: Callable[[EpochResult], None], checkpoint: Path | None, checkpoint_seconds: float
    ) -> Learnt:
        """Learns a task, after those before it."""

    @abstractmethod
    def consolidate(self, part: Part) -> None:
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
        parts, scenario = self.stream.parts, self.stream.settings.scenario
        count = self.stream.task.n_classes
        found = []
        for part in parts:
            outputs = predicted_outputs(parts, scenario, after, part.number, count)
            # In a class-incremental stream nothing of a task to come can be right.
            known = bool(outputs[list(part.classes)].any())
            found.append(self.inputs.accuracy(self.classify, part.images(role), outputs) if known else 0.0)
        return tuple(found)
