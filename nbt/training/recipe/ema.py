"""Exponential moving average of the weights, which is evaluated and is the result instead of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nbt.transfer.technique import TrainingHooks
from nbt.transfer.transfer_depth import copy_tensors


class WeightEMA(TrainingHooks):
    """Moving average of the trained parameters. Buffers (BatchNorm statistics) are not averaged.

    The decay after t steps is `min(decay, (1 + t) / (10 + t))`, so that the initial weights lose influence quickly.

    Args:
        parameters: Parameters to average.
        decay: Share of the average that a step keeps, 0 ... below 1.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = parameters
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def after_step(self) -> None:
        """Updates the average with the current parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self._parameters], 1.0 - decay)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Replaces the parameters by their averages inside the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def after_training(self) -> None:
        """Replaces the parameters by their averages."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchanges the parameters and their averages; a second call restores them."""
        parameters = [parameter.detach() for parameter in self._parameters]
        current = [parameter.clone() for parameter in parameters]
        torch._foreach_copy_(parameters, self.values)
        torch._foreach_copy_(self.values, current)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages and the number of steps."""
        return {"values": self.values, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the averages and the number of steps."""
        copy_tensors(self.values, state["values"])
        self.steps = state["steps"]
