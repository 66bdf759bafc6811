"""StageContext: one task of a stream, as `fine_tune` trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class Penalty(Protocol):
    """What draws the weights of a trial back besides decay, such as `nbt.transfer.quadratic_penalty.QuadraticPenalty`."""

    def bind(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Takes the parameters that train, by their names in `Backbone.named_parameters`."""

    def add_to_gradients(self) -> None:
        """Adds its gradient to `.grad` in place; called after the backward pass of every step."""


@dataclass(frozen=True, eq=False)
class StageContext:
    """Where a training starts and what it answers to, where it is not one of its own.

    Attributes:
        start: State of the whole `Backbone` to start from; None starts as a trial of its own does.
        origin: State of the whole `Backbone` at theta0, of a linearised training; None takes the start.
        outputs: Which outputs take part in loss and predictions, bool (C,); None for all.
        penalty: What draws the weights back; None for nothing but decay.
        zap_classes: Classes whose rows of the head zaps may reset; None for all. What earlier tasks taught the others would
            be lost.
    """

    start: Mapping[str, torch.Tensor] | None = None
    origin: Mapping[str, torch.Tensor] | None = None
    outputs: torch.Tensor | None = None
    penalty: Penalty | None = None
    zap_classes: tuple[int, ...] | None = None
