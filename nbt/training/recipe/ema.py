"""Exponential moving average of weights: evaluated and kept in place of the last weights."""

from __future__ import annotations

import torch
from torch import nn


class WeightEMA:
    """Averages the trained parameters; buffers (BatchNorm statistics) follow the model as they are.

    The decay grows with the steps, `min(decay, (1 + t) / (10 + t))`, so that the start does not weigh for ever.

    Args:
        parameters: What to average.
        decay: Share of the average that a step keeps, 0 ... below 1.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = parameters
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self._parameters], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the parameters and their averages; a second call takes it back."""
        parameters = [parameter.detach() for parameter in self._parameters]
        kept = [parameter.clone() for parameter in parameters]
        torch._foreach_copy_(parameters, self.values)
        torch._foreach_copy_(self.values, kept)
