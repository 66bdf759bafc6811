"""Methods of continual learning that train the network.

- *finetune* continues from the weights of the previous task; with decay towards w0 it is L2-SP, with zaps it is
  zapping.
- *ewc* is Elastic Weight Consolidation (Kirkpatrick et al., arXiv 1612.00796) with one penalty, centred at the weights
  of the previous task. Its strength is the sum of the diagonal Fisher information of all past tasks, each computed at
  the weights after that task (Huszar, "Note on the quadratic penalties in elastic weight consolidation", arXiv
  1712.03847).
- *dlcft* (Shon et al., arXiv 2208.08112) trains the network linearised around theta0 with squared error, and penalises
  changes by the Gauss-Newton curvature of all past tasks at theta0, where the curvature depends neither on labels nor
  on the trained weights. In theta0 no row of the head is 0, because the logit of its class would not depend on the
  backbone. On a network that is not linearised it uses the curvature at the weights after each task.
- *joint* trains at every stage from the initial weights on all images so far; it is the upper bound.
- *probe* is a ridge regression on frozen features, see `nbt.training.continual.linear_probe`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nbt.devices import inference_batch_size
from nbt.models.backbone import Backbone
from nbt.seeds import derive_seed, generator
from nbt.training.continual.curvature_memory import curvature_kind, keeps_separate_curvatures
from nbt.training.continual.learner import Learner, StageResult, TaskStream
from nbt.training.continual.linear_probe import ProbeLearner
from nbt.training.continual.penalty import make_penalty
from nbt.training.continual.ridge_head import fit_ridge_head
from nbt.training.continual.scenarios import ContinualStage, Mask, class_mask, seen_classes, trained_outputs
from nbt.training.fine_tune import fine_tune
from nbt.training.results import EpochResult
from nbt.training.stage import StageContext
from nbt.transfer.curvature.estimate import Curvature, estimate_curvature, load_curvature
from nbt.transfer.fast import FeatureNorm
from nbt.transfer.linearize import FirstOrder
from nbt.transfer.quadratic_penalty import QuadraticPenalty
from nbt.transfer.transfer_depth import freeze, frozen_units
from nbt.transfer.zap import zap

State = dict[str, torch.Tensor]

_CURVATURE_BATCH_SIZE = 32


def make_learner(stream: TaskStream) -> Learner:
    """Returns the learner of the method in the stream's recipe, in its state before the first task."""
    return ProbeLearner(stream) if stream.recipe.stream.method == "probe" else NetworkLearner(stream)


class NetworkLearner(Learner):
    """Trains the network, or its linearisation, on one task after another with `fine_tune`.

    Attributes:
        joint: Whether every stage trains on all images so far, from the initial weights.
        fits_head: Whether rows of the head start from a ridge regression.
        curvatures: Curvatures of past tasks: one per task, or their sum.
        origin: State of the model at theta0.
        state: State of the model after the last stage.
    """

    def __init__(self, stream: TaskStream) -> None:
        super().__init__(stream, stream.recipe)
        recipe = stream.recipe
        self.joint = self.recovers_from_divergence = recipe.stream.method == "joint"
        self.fits_head = stream.settings.head == "fitted" and stream.settings.has_origin_head
        self.curvatures: list[Curvature] = []
        norm = self.model.feature_norm
        if isinstance(norm, FeatureNorm) and norm.mode == "target":
            norm.fit(features for features, _ in self.inputs.feature_batches(stream.stages[0].train))
        self.origin = _copy_state(self.model)
        self.state = _copy_state(self.model)

    def learn(
        self,
        stage: ContinualStage,
        on_epoch: Callable[[EpochResult], None],
        checkpoint: Path | None,
        checkpoint_seconds: float,
    ) -> StageResult:
        """Trains on one stage."""
        stream, recipe = self.stream, self.stream.recipe
        if self.fits_head and (stage.number == 1 or stream.settings.scenario == "task"):
            self._fit_head_rows(stage)
        if recipe.zap_period and stage.number > 1 and not self.joint:
            self._zap_head_rows(stage)
        images = stream.train_images_up_to(stage.number) if self.joint else stage.train
        outputs = self._outputs(stage)
        stage_context = StageContext(
            start=self.origin if self.joint else self.state,
            origin=self.origin if recipe.linearized else None,
            outputs=None if outputs.all() else torch.from_numpy(outputs).to(stream.context.device),
            penalty=self._penalty(len(stage.train)),
            zap_classes=None if self.joint else stage.classes,
        )
        split = dataclasses.replace(stream.task.split, train=images, val=images[:0])
        trial = fine_tune(
            dataclasses.replace(stream.task, split=split, watched=None),
            stream.settings.recipe,
            derive_seed(stream.seed, "task", stage.number),
            context=stream.context,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            stage=stage_context,
        )
        while True:
            try:
                on_epoch(next(trial))
            except StopIteration as end:
                result = end.value
                break
        self._store_trained(result.model, outputs)
        last = result.curve[-1]
        return StageResult(len(images), last.train_loss if math.isfinite(last.train_loss) else math.inf, last.diverged)

    def consolidate(self, stage: ContinualStage) -> None:
        """Adds the curvature of a stage's loss, at theta0 of a linearised network, else at the current weights."""
        stream, recipe = self.stream, self.stream.recipe
        kind = curvature_kind(recipe)
        if kind is None:
            return
        model = self.model
        model.load_state_dict(self.origin if recipe.linearized else self.state)
        freeze(model, model.units, *frozen_units(recipe, len(model.units)))
        model.eval()
        outputs = torch.from_numpy(self._outputs(stage)).to(stream.context.device)
        batch_size = inference_batch_size(_CURVATURE_BATCH_SIZE, stream.task.image_size)
        curvature = estimate_curvature(
            kind,
            model,
            ((inputs.float(), self.frozen) for inputs, _ in self.inputs.batches(stage.train, size=batch_size)),
            outputs=None if bool(outputs.all()) else outputs,
            vectors="fisher" if recipe.stream.method == "ewc" else stream.settings.vectors,
            generator=generator(stream.seed, "curvature", stage.number),
            max_bytes=None,
        )
        if self.curvatures and not keeps_separate_curvatures(stream.settings, kind):
            curvature = self.curvatures.pop().plus(curvature)
        self.curvatures.append(curvature)

    def trained_model(self) -> Backbone | FirstOrder:
        """Returns the network, or its linearisation, after the last stage that this object trained."""
        assert isinstance(self.classify, Backbone | FirstOrder)
        return self.classify

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights, theta0 and the curvatures."""
        curvatures = [curvature.state_dict() for curvature in self.curvatures]
        return {"weights": self.state, "origin": self.origin, "curvatures": curvatures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state from the result of `state_dict`."""
        device = self.stream.context.device
        self.state = {name: tensor.to(device) for name, tensor in state["weights"].items()}
        self.origin = {name: tensor.to(device) for name, tensor in state["origin"].items()}
        self.curvatures = [load_curvature(saved).to(device) for saved in state["curvatures"]]

    def _outputs(self, stage: ContinualStage) -> Mask:
        """Returns the outputs in the loss.

        Joint training on a task-incremental stream uses one mask for all images, with the classes of all tasks so far.
        """
        stream, count = self.stream, self.stream.task.n_classes
        squared = stream.recipe.target_scale > 0.0
        if self.joint and stream.settings.scenario == "task":
            return class_mask(count, seen_classes(stream.stages, stage.number))
        return trained_outputs(stream.stages, stream.settings.scenario, stage.number, count, squared=squared)

    def _penalty(self, n_train: int) -> QuadraticPenalty | None:
        if not self.curvatures:
            return None
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        centre = {name: tensor.clone() for name, tensor in self.state.items() if name in trained}
        return make_penalty(self.curvatures, centre, self.model, self.stream.recipe, n_train)

    def _fit_head_rows(self, stage: ContinualStage) -> None:
        """Fits the head's rows of the classes with training images; the other rows are those of a new layer.

        In a task-incremental stream the other rows, which no loss contains before they are fitted, start at 0.
        """
        self.model.load_state_dict(self.origin)
        scale = self.stream.recipe.target_scale or 1.0
        weight, bias = fit_ridge_head(self.inputs, stage, self.stream.task.n_classes, scale)
        rows = np.unique(self.stream.task.labels[stage.train]).tolist()
        is_first_of_separate_tasks = stage.number == 1 and self.stream.settings.scenario == "task"
        for state in (self.origin, self.state):
            for name, values in (("head.weight", weight), ("head.bias", bias)):
                if is_first_of_separate_tasks:
                    state[name].zero_()
                state[name][rows] = values.to(state[name])[rows]

    def _zap_head_rows(self, stage: ContinualStage) -> None:
        """Draws new weights for the head's rows of a stage's classes."""
        head = nn.Linear(self.model.feature_dim, self.stream.task.n_classes)
        rng = generator(self.stream.seed, "zap", stage.number)
        zap(head, stage.classes, self.stream.recipe.zap_scale, rng)
        rows = list(stage.classes)
        weight = self.state["head.weight"]
        weight[rows] = head.weight.detach().to(weight)[rows]

    @torch.no_grad()
    def _store_trained(self, network: nn.Module, outputs: Mask) -> None:
        """Stores the trained weights; restores the rows of the head that are not in the loss: no decay and no zap."""
        model = network.model if isinstance(network, FirstOrder) else network
        assert isinstance(model, nn.Module)
        inactive = torch.from_numpy(np.flatnonzero(~outputs)).to(self.stream.context.device)
        before = self.origin if self.joint else self.state
        trained = model.state_dict()
        for name in ("head.weight", "head.bias"):
            trained[name][inactive] = before[name][inactive]
        self.state = _copy_state(model)
        self.classify = network


def _copy_state(model: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
