"""Linear probe of a stream: an incremental ridge regression on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from nbt.data.splits import Index
from nbt.models.backbone import Backbone
from nbt.settings import repair
from nbt.training.continual.incremental_ridge import IncrementalRidge
from nbt.training.continual.learner import Learner, StageResult, TaskStream
from nbt.training.continual.ridge_head import choose_ridge_strength, one_hot
from nbt.training.continual.scenarios import ContinualStage
from nbt.training.results import EpochResult


class ProbeLearner(Learner):
    """Ridge regression of one-hot labels on the features of the pretrained weights.

    A data- or class-incremental stream has one regression on all tasks so far, a task-incremental stream has one per
    task. The ridge strength is chosen on the validation images of the first task. Decay, learning rates and epochs of
    the recipe have no effect.
    """

    def __init__(self, stream: TaskStream) -> None:
        super().__init__(stream, repair(stream.settings.recipe.replace(frozen_depth=1.0, feature_norm="none")))
        self.ridge = self._new_ridge()
        self.share: float | None = None
        self.weight = self.model.head.weight.detach().double()
        self.bias = self.model.head.bias.detach().double()
        self.classify = self._classify

    def learn(
        self,
        stage: ContinualStage,
        on_epoch: Callable[[EpochResult], None],
        checkpoint: Path | None,
        checkpoint_seconds: float,
    ) -> StageResult:
        """Adds the images of a stage to the regression and solves it."""
        if self.stream.settings.scenario == "task":
            self.ridge = self._new_ridge()
        for features, targets in self._rows(stage.train):
            self.ridge.add(features, targets)
        if self.share is None:
            self.share = choose_ridge_strength(self.inputs, self.ridge, stage, self.stream.task.n_classes)
        weight, bias = self.ridge.solve(self.share)
        if stage.number == 1:
            self.weight, self.bias = torch.zeros_like(weight), torch.zeros_like(bias)
        rows = list(stage.classes) if self.stream.settings.scenario == "task" else slice(None)
        self.weight[rows], self.bias[rows] = weight[rows], bias[rows]
        return StageResult(len(stage.train), self._loss(stage))

    def consolidate(self, stage: ContinualStage) -> None:
        """Does nothing: the sums of the regression already contain the stage."""

    @torch.no_grad()
    def trained_model(self) -> Backbone:
        """Returns the pretrained network with the solution of the regression as its head."""
        head = self.model.head
        head.weight.copy_(self.weight)
        head.bias.copy_(self.bias)
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums, the ridge strength and the solution."""
        return {"ridge": self.ridge.state_dict(), "share": self.share, "weight": self.weight, "bias": self.bias}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from the result of `state_dict`."""
        self.ridge.load_state_dict(state["ridge"])
        self.share = state["share"]
        self.weight, self.bias = state["weight"].to(self.weight.device), state["bias"].to(self.bias.device)

    def _new_ridge(self) -> IncrementalRidge:
        return IncrementalRidge(self.model.feature_dim, self.stream.task.n_classes, device=self.stream.context.device)

    def _rows(self, index: Index) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for features, truth in self.inputs.feature_batches(index):
            yield features, one_hot(truth, self.stream.task.n_classes)

    def _loss(self, stage: ContinualStage) -> float:
        total = 0.0
        for features, targets in self._rows(stage.train):
            total += float((features.double() @ self.weight.T + self.bias - targets).square().sum())
        return total / 2 / max(1, len(stage.train))

    def _classify(self, inputs: torch.Tensor, start: int) -> torch.Tensor:
        if start < self.model.n_units:
            inputs = self.model.neck(self.model.forward_units(inputs, start))
        return inputs.double() @ self.weight.T + self.bias
