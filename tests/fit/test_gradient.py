"""Relative gradient norms: closed forms on a linear network."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbt.fit.gradient import relative_gradient_norms


def linear_model(*units: nn.Module) -> Any:
    net = nn.Sequential(*units)
    return SimpleNamespace(units=net, features=net)


def test_the_closed_form_of_two_linear_units() -> None:
    rng = np.random.default_rng(0)
    first, second = nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)
    a, b = (unit.weight.detach().double().numpy() for unit in (first, second))
    x, y, w, c = (
        rng.normal(size=(7, 5)),
        np.eye(2)[rng.integers(2, size=7)],
        rng.normal(size=(2, 3)),
        rng.normal(size=2),
    )
    errors = (x @ a.T @ b.T @ w.T + c - y) / 7
    expected = [
        np.linalg.norm(b.T @ w.T @ errors.T @ x) / np.linalg.norm(a),
        np.linalg.norm(w.T @ errors.T @ x @ a.T) / np.linalg.norm(b),
    ]
    tensors = [torch.from_numpy(value).float() for value in (x, y, w, c)]
    assert relative_gradient_norms(linear_model(first, second), *tensors) == pytest.approx(expected, rel=1e-4)
    assert first.weight.grad is None, "the model keeps no gradients"


def test_units_without_parameters_and_with_unused_ones() -> None:
    unit = nn.Linear(3, 3)
    unused = nn.Sequential(nn.Identity())
    unused.register_parameter("spare", nn.Parameter(torch.ones(2)))
    tensors = torch.ones(2, 3), torch.eye(2), torch.ones(2, 3), torch.zeros(2)
    ratios = relative_gradient_norms(linear_model(nn.ReLU(), unit, unused), *tensors)
    assert math.isnan(ratios[0]) and ratios[1] > 0 and ratios[2] == 0.0


def test_a_head_of_zeros_has_no_gradient_below_it() -> None:
    tensors = torch.ones(2, 3), torch.eye(2), torch.zeros(2, 3), torch.zeros(2)
    assert relative_gradient_norms(linear_model(nn.Linear(3, 3)), *tensors) == [0.0]
