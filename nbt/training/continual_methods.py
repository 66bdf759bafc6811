"""Methods of a stream: what is learnt of each task, and what is kept of it for the next ones.

- *finetune* goes on from the last task's weights; with a pull to w0 it is L2-SP, with zaps it is zapping.
- *ewc* is Elastic Weight Consolidation (Kirkpatrick et al., arXiv 1612.00796) with one penalty, centred at the last
  task's weights, whose strength is the sum of the diagonal Fisher informations of all past tasks, each at the weights
  after its own (Huszar, "Note on the quadratic penalties in elastic weight consolidation", arXiv 1712.03847).
- *dlcft* (Shon et al., arXiv 2208.08112) trains the network linearised around theta0 with squared error, with the
  Gauss-Newton curvature of all past tasks at theta0, where it needs no label and does not depend on what was learnt.
  On a network that is not linearised it is the same penalty with the curvature at each task's own weights.
- *joint* trains at every stage from the start on all images so far: the upper bound.
- *probe* is one ridge regression on frozen features, see `nbt.training.continual_probe`.
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

from nbt.training.continual_heads import fit_head
from nbt.training.continual_learner import Learner, Learnt, Stream
from nbt.training.continual_memory import curvature_kind, keeps_apart
from nbt.training.continual_penalty import make_penalty
from nbt.training.continual_probe import ProbeLearner
from nbt.training.devices import images_at_once
from nbt.training.fine_tune import fine_tune
from nbt.training.leg import Leg
from nbt.training.results import EpochResult
from nbt.training.scenarios import Mask, Part, class_mask, seen_classes, trained_outputs
from nbt.training.seeds import derive_seed, generator
from nbt.transfer.curvature import Curvature, estimate_curvature, load_curvature
from nbt.transfer.depth import freeze
from nbt.transfer.fast import FeatureNorm
from nbt.transfer.linearize import FirstOrder
from nbt.transfer.quadratic import QuadraticPenalty
from nbt.transfer.zap import zap

State = dict[str, torch.Tensor]

_CURVATURE_BATCH = 32


def make_learner(stream: Stream) -> Learner:
    """Returns the method that a stream's recipe asks for, before its first task."""
    return ProbeLearner(stream) if stream.recipe.method == "probe" else NetworkLearner(stream)


class NetworkLearner(Learner):
    """Trains the network (or its expansion) task after task with `fine_tune`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, stream.recipe)
        recipe = stream.recipe
        self.joint = self.recovers = recipe.method == "joint"
        self.fitted = stream.settings.head == "fitted" and (recipe.linearized or recipe.method == "dlcft")
        self.curvatures: list[Curvature] = []
        norm = self.model.feature_norm
        if isinstance(norm, FeatureNorm) and norm.mode == "target":
            norm.fit(features for features, _ in self.inputs.feature_batches(stream.parts[0].train))
        self.origin = _copy(self.model)
        self.state = _copy(self.model)

    def learn(
        self, part: Part, on_epoch: Callable[[EpochResult], None], checkpoint: Path | None, checkpoint_seconds: float
    ) -> Learnt:
        """Runs one leg."""
        stream, recipe = self.stream, self.stream.recipe
        if self.fitted and (part.number == 1 or stream.settings.scenario == "task"):
            self._fit_rows(part)
        if recipe.zap_period and part.number > 1 and not self.joint:
            self._zap_rows(part)
        images = stream.images_so_far(part.number) if self.joint else part.train
        outputs = self._outputs(part)
        leg = Leg(
            start=self.origin if self.joint else self.state,
            origin=self.origin if recipe.linearized else None,
            outputs=None if outputs.all() else torch.from_numpy(outputs).to(stream.bench.device),
            penalty=self._penalty(len(part.train)),
            zapped=None if self.joint else part.classes,
        )
        split = dataclasses.replace(stream.task.split, train=images, val=images[:0])
        trial = fine_tune(
            dataclasses.replace(stream.task, split=split, watched=None),
            stream.settings.recipe,
            derive_seed(stream.seed, "task", part.number),
            bench=stream.bench,
            checkpoint=checkpoint,
            checkpoint_seconds=checkpoint_seconds,
            leg=leg,
        )
        while True:
            try:
                on_epoch(next(trial))
            except StopIteration as end:
                tuned = end.value
                break
        self._take(tuned.model, outputs)
        last = tuned.curve[-1]
        return Learnt(len(images), last.train_loss if math.isfinite(last.train_loss) else math.inf, last.diverged)

    def consolidate(self, part: Part) -> None:
        """Adds the curvature of a task's loss, at theta0 of a linearised network, else at the weights as they are."""
        stream, recipe = self.stream, self.stream.recipe
        kind = curvature_kind(recipe)
        if kind is None:
            return
        model = self.model
        model.load_state_dict(self.origin if recipe.linearized else self.state)
        freeze(model, model.units, self.frozen)
        model.eval()
        outputs = torch.from_numpy(self._outputs(part)).to(stream.bench.device)
        together = images_at_once(_CURVATURE_BATCH, stream.task.image_size)
        found = estimate_curvature(
            kind,
            model,
            ((inputs.float(), self.frozen) for inputs, _ in self.inputs.batches(part.train, size=together)),
            outputs=None if bool(outputs.all()) else outputs,
            vectors="fisher" if recipe.method == "ewc" else stream.settings.vectors,
            generator=generator(stream.seed, "curvature", part.number),
            max_bytes=None,
        )
        if self.curvatures and not keeps_apart(stream.settings, kind):
            found = self.curvatures.pop().plus(found)
        self.curvatures.append(found)

    def state_dict(self) -> dict[str, Any]:
        """Returns weights, theta0 and curvatures."""
        curvatures = [curvature.state_dict() for curvature in self.curvatures]
        return {"weights": self.state, "origin": self.origin, "curvatures": curvatures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        device = self.stream.bench.device
        self.state = {name: tensor.to(device) for name, tensor in state["weights"].items()}
        self.origin = {name: tensor.to(device) for name, tensor in state["origin"].items()}
        self.curvatures = [load_curvature(saved).to(device) for saved in state["curvatures"]]

    def _outputs(self, part: Part) -> Mask:
        """Returns the outputs in the loss. Joint training in a task-incremental stream has one mask for all images."""
        stream, count = self.stream, self.stream.task.n_classes
        squared = stream.recipe.target_scale > 0.0
        if self.joint and stream.settings.scenario == "task":
            return class_mask(count, seen_classes(stream.parts, part.number))
        return trained_outputs(stream.parts, stream.settings.scenario, part.number, count, squared=squared)

    def _penalty(self, n_train: int) -> QuadraticPenalty | None:
        if not self.curvatures:
            return None
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        centre = {name: tensor.clone() for name, tensor in self.state.items() if name in trained}
        return make_penalty(self.curvatures, centre, self.model, self.stream.recipe, n_train)

    def _fit_rows(self, part: Part) -> None:
        """Fits the head's rows of a task's classes; before the first task the others become 0."""
        self.model.load_state_dict(self.origin)
        scale = self.stream.recipe.target_scale or 1.0
        weight, bias = fit_head(self.inputs, part, self.stream.task.n_classes, scale)
        rows = list(part.classes)
        for state in (self.origin, self.state):
            for name, values in (("head.weight", weight), ("head.bias", bias)):
                if part.number == 1:
                    state[name].zero_()
                state[name][rows] = values.to(state[name])[rows]

    def _zap_rows(self, part: Part) -> None:
        """Draws the head's rows of a task's classes afresh."""
        head = nn.Linear(self.model.feature_dim, self.stream.task.n_classes)
        chance = generator(self.stream.seed, "zap", part.number)
        zap(head, part.classes, self.stream.recipe.zap_scale, chance)
        rows = list(part.classes)
        weight = self.state["head.weight"]
        weight[rows] = head.weight.detach().to(weight)[rows]

    @torch.no_grad()
    def _take(self, network: nn.Module, outputs: Mask) -> None:
        """Takes over what was trained. Rows of the head that were in no loss are as before: no decay, no zap."""
        model = network.model if isinstance(network, FirstOrder) else network
        assert isinstance(model, nn.Module)
        idle = torch.from_numpy(np.flatnonzero(~outputs)).to(self.stream.bench.device)
        before = self.origin if self.joint else self.state
        trained = model.state_dict()
        for name in ("head.weight", "head.bias"):
            trained[name][idle] = before[name][idle]
        self.state = _copy(model)
        self.classify = network


def _copy(model: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
