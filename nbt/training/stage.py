"""What `fine_tune` receives from a stage of a stream: start, penalty and active outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class Penalty(Protocol):
    """A penalty on the weights in addition to decay, such as `nbt.transfer.quadratic_penalty.QuadraticPenalty`."""

    def bind(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Sets the trainable parameters, by their names in `Backbone.named_parameters`."""

    def add_to_gradients(self) -> None:
        """Adds the gradient of the penalty to `.grad` in place; called after the backward pass of every step."""


@dataclass(frozen=True, eq=False)
class StageContext:
    """Start, penalty and outputs of a stage of a stream. The defaults are those of a training outside a stream.

    Attributes:
        start: State of the whole `Backbone` to start from; None starts from the weights that the settings define.
        origin: State of the whole `Backbone` at theta0, the expansion point of a linearised network; None uses the
            start.
        outputs: Outputs that take part in the loss and in predictions, bool (C,); None for all.
        penalty: Penalty on the weights in addition to decay; None for none.
        zap_classes: Classes whose rows of the head zaps may reset; None for all. Zaps of other rows would erase earlier
            tasks.
    """

    start: Mapping[str, torch.Tensor] | None = None
    origin: Mapping[str, torch.Tensor] | None = None
    outputs: torch.Tensor | None = None
    penalty: Penalty | None = None
    zap_classes: tuple[int, ...] | None = None
