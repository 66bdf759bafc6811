"""Exponential moving average of the weights, which is evaluated and kept instead of the weights themselves."""

from __future__ import annotations

import torch
from torch import nn


class WeightEMA:
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
    def update(self) -> None:
        """Updates the average with the current parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self._parameters], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the parameters and their averages; a second call restores them."""
        parameters = [parameter.detach() for parameter in self._parameters]
        current = [parameter.clone() for parameter in parameters]
        torch._foreach_copy_(parameters, self.values)
        torch._foreach_copy_(self.values, current)
