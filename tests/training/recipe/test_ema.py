"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nbt.training.recipe.ema import WeightEMA


def test_average_with_growing_decay() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average = WeightEMA([parameter], 0.5)
    expected = torch.zeros(2)
    for step in range(1, 30):
        parameter.data.fill_(float(step))
        average.after_step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.values[0], expected)


def test_evaluation_uses_the_average_and_restores_the_weights() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = WeightEMA([parameter], 0.9)
    parameter.data += 1
    with average.evaluation():
        assert parameter.tolist() == [1.0, 2.0]
    assert parameter.tolist() == [2.0, 3.0]
    assert average.values[0].tolist() == pytest.approx([1.0, 2.0])
