from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nbt.transfer import L2SP, ParameterGroup

strength = st.floats(0, 2).map(lambda x: round(x, 3))


def make(alpha: float, beta: float, seed: int = 0) -> tuple[list[nn.Parameter], dict[nn.Parameter, torch.Tensor], L2SP]:
    rng = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=rng)) for shape in ((3, 4), (2, 3, 2, 2))]
    anchors = {p: torch.randn(p.shape, generator=rng) for p in parameters}
    return parameters, anchors, L2SP([ParameterGroup(parameters, 0.1, alpha, beta)], anchors)


@settings(max_examples=30, deadline=None)
@given(alpha=strength, beta=strength, seed=st.integers(0, 5))
def test_fused_gradient_agrees_with_autograd_and_the_closed_form(alpha: float, beta: float, seed: int) -> None:
    parameters, anchors, penalty = make(alpha, beta, seed)
    penalty.penalty().backward() if alpha or beta else None
    by_autograd = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    penalty.add_to_gradients()
    for p, autograd in zip(parameters, by_autograd, strict=True):
        closed = alpha * (p - anchors[p]) + beta * p
        torch.testing.assert_close(p.grad - 1.0, closed.detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(autograd, closed.detach(), atol=1e-5, rtol=1e-5)


def test_penalty_agrees_with_the_definition() -> None:
    parameters, anchors, penalty = make(0.5, 0.25)
    expected = sum(0.25 * (p - anchors[p]).square().sum() + 0.125 * p.square().sum() for p in parameters)
    assert penalty.penalty().item() == pytest.approx(expected.item(), rel=1e-5)


def test_mix_zero_equals_the_weight_decay_of_the_optimiser() -> None:
    parameters, _, penalty = make(0.0, 0.3)
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    plain = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
    reference = torch.optim.SGD(copies, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.3)
    for step in range(5):
        for p, q in zip(parameters, copies, strict=True):
            p.grad = torch.full_like(p, 0.1 * step)
            q.grad = p.grad.clone()
        penalty.add_to_gradients()
        plain.step()
        reference.step()
    for p, q in zip(parameters, copies, strict=True):
        torch.testing.assert_close(p, q)


def test_decoupled_decay_without_anchors_equals_adamw() -> None:
    parameters, _, penalty = make(0.0, 0.3)
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    plain = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.0)
    reference = torch.optim.AdamW(copies, lr=0.05, weight_decay=0.3)
    for p, q in zip(parameters, copies, strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    penalty.decay(0.5)  # the group's peak rate is 0.1
    plain.step()
    reference.step()
    for p, q in zip(parameters, copies, strict=True):
        torch.testing.assert_close(p, q)


def test_a_large_alpha_keeps_the_weights_at_w0() -> None:
    parameters, anchors, penalty = make(5.0, 0.0)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(100):
        for p in parameters:
            p.grad = torch.full_like(p, 0.01)
        penalty.add_to_gradients()
        optimizer.step()
    for p in parameters:
        torch.testing.assert_close(p.detach(), anchors[p] - 0.01 / 5.0, atol=1e-4, rtol=0)


def test_decoupled_decay_converges_to_w0() -> None:
    parameters, anchors, penalty = make(1.0, 0.0)
    for _ in range(300):
        penalty.decay(1.0)
    for p in parameters:
        torch.testing.assert_close(p.detach(), anchors[p], atol=1e-4, rtol=0)


def test_parameters_without_a_gradient_are_unchanged() -> None:
    parameters, _, penalty = make(1.0, 1.0)
    parameters[0].grad = torch.zeros_like(parameters[0])
    penalty.add_to_gradients()
    assert parameters[1].grad is None
    assert parameters[0].grad.abs().sum() > 0


def test_missing_and_misshapen_anchors_are_refused() -> None:
    p = nn.Parameter(torch.zeros(2, 2))
    group = ParameterGroup([p], 0.1, 1.0, 0.0)
    with pytest.raises(ValueError, match="no anchor"):
        L2SP([group], {})
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        L2SP([group], {p: torch.zeros(3, 2)})
