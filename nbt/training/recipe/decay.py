"""Weight decay, L2-SP and the penalty of a stage in a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nbt.training.stage import Penalty
from nbt.transfer.l2sp import L2SP
from nbt.transfer.layer_lr import ParameterGroup
from nbt.transfer.technique import TrainingHooks, TrainingRun


class Decay(TrainingHooks):
    """All weight decay, L2 and L2-SP: added to the gradients for SGD, decoupled for AdamW.

    Args:
        run: The training.
        groups: Parameters with their strengths.
        w0: Pretrained weights by name.
    """

    def __init__(self, run: TrainingRun, groups: Sequence[ParameterGroup], w0: Mapping[str, torch.Tensor]) -> None:
        by_name = dict(run.model.named_parameters())
        self._l2sp = L2SP(groups, {by_name[name]: tensor for name, tensor in w0.items() if name in by_name})
        self._decoupled = run.settings.optimizer == "adamw"

    def after_backward(self, factor: float) -> None:
        """Decays the weights or adds to their gradients."""
        if self._decoupled:
            self._l2sp.decay(factor)
        else:
            self._l2sp.add_to_gradients()

    def state_dict(self) -> dict[str, Any]:
        """Returns the anchors: checkpoints of version 0.1 have no hash of the weights, whose file may have changed."""
        return {"anchors": self._l2sp.anchors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the anchors."""
        self._l2sp.anchors = [
            [saved.to(anchor) for saved, anchor in zip(values, group, strict=True)]
            for values, group in zip(state["anchors"], self._l2sp.anchors, strict=True)
        ]


class StagePenalty(TrainingHooks):
    """The penalty of a stage of a stream on the parameters that train."""

    def __init__(self, run: TrainingRun, penalty: Penalty) -> None:
        self._penalty = penalty
        penalty.bind({name: parameter for name, parameter in run.model.named_parameters() if parameter.requires_grad})

    def after_backward(self, factor: float) -> None:
        """Adds the gradient of the penalty."""
        self._penalty.add_to_gradients()
