from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from nbt.errors import UsageError
from nbt.transfer.curvature.estimate import estimate_curvature
from nbt.transfer.quadratic_penalty import QuadraticPenalty
from tests.transfer.curvature.curvature_models import convs, dense, images, mlp, trained, unflatten, vectors

KINDS = ("exact", "kfac", "diagonal")


def centre_of(model: nn.Module, seed: int = 3) -> dict[str, Tensor]:
    total = sum(parameter.numel() for parameter in trained(model).values())
    return unflatten(vectors(1, total, seed)[0], model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_agrees_with_autograd_and_is_added(kind: str) -> None:
    model = convs()
    curvatures = [estimate_curvature(kind, model, [images(3, seed)]) for seed in (1, 2)]
    penalty = QuadraticPenalty(curvatures, centre_of(model), strength=0.7, damping=0.3, scale=5.0)
    penalty.bind(trained(model))
    value = penalty.value()
    assert value > 0
    expected = torch.autograd.grad(value, list(trained(model).values()))
    for parameter in list(trained(model).values())[1:]:
        parameter.grad = torch.ones_like(parameter)
    penalty.add_to_gradients()
    for index, (parameter, gradient) in enumerate(zip(trained(model).values(), expected, strict=True)):
        torch.testing.assert_close(parameter.grad, gradient + (1.0 if index else 0.0), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_value_agrees_with_the_definition(kind: str) -> None:
    model, centre = mlp(4, 5, 3), centre_of(mlp(4, 5, 3))
    curvatures = [estimate_curvature(kind, model, [vectors(4, 4, seed)]) for seed in (1, 2)]
    penalty = QuadraticPenalty(curvatures, centre, strength=0.7, damping=0.3, scale=5.0)
    penalty.bind(trained(model))
    moved = {name: (parameter - centre[name]).detach() for name, parameter in trained(model).items()}
    by_hand = sum(0.3 * values.square().sum() for values in moved.values())
    for curvature in curvatures:
        product = curvature.multiply(moved)
        by_hand = by_hand + sum((moved[name] * product[name]).sum() for name in moved)
    assert penalty.value().item() == pytest.approx(0.5 * 0.7 / 5.0 * float(by_hand), rel=1e-10)


def test_the_gradient_is_0_at_the_centre_and_without_strength() -> None:
    model = mlp(4, 5, 3)
    curvature = estimate_curvature("kfac", model, [vectors(4, 4)])
    for centre, strength in ((trained(model), 1.0), (centre_of(model), 0.0)):
        penalty = QuadraticPenalty([curvature], centre, strength=strength, damping=1.0)
        penalty.bind(trained(model))
        penalty.add_to_gradients()
        assert penalty.value() == 0
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_damping_alone_is_a_decay_towards_the_centre() -> None:
    model, centre = mlp(4, 5, 3), centre_of(mlp(4, 5, 3))
    penalty = QuadraticPenalty([], centre, damping=2.0, scale=4.0)
    penalty.bind(trained(model))
    penalty.add_to_gradients()
    for name, parameter in trained(model).items():
        torch.testing.assert_close(parameter.grad, 0.5 * (parameter - centre[name]).detach())


def test_frozen_parameters_get_no_gradient_but_affect_the_others() -> None:
    model = mlp(4, 5, 3)
    curvature = estimate_curvature("exact", model, [vectors(9, 4)])
    penalty = QuadraticPenalty([curvature], centre_of(model), damping=0.3)
    penalty.bind(trained(model))
    penalty.add_to_gradients()
    expected = {name: parameter.grad.clone() for name, parameter in trained(model).items()}
    model.zero_grad()
    model[0].requires_grad_(False)
    penalty.add_to_gradients()
    assert model[0].weight.grad is None and model[0].bias.grad is None
    for name in ("2.weight", "2.bias"):
        torch.testing.assert_close(model.get_parameter(name).grad, expected[name])
    model.requires_grad_(False).zero_grad()
    penalty.add_to_gradients()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_invalid_input_is_refused() -> None:
    model = mlp(4, 5, 3)
    curvature = estimate_curvature("diagonal", model, [vectors(4, 4)])
    centre = centre_of(model)
    for options in ({"strength": -1.0}, {"damping": -0.1}, {"scale": 0.0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            QuadraticPenalty([curvature], centre, **options)
    with pytest.raises(ValueError, match="different parameters"):
        QuadraticPenalty([curvature], centre_of(mlp(4, 3)))
    penalty = QuadraticPenalty([curvature], centre)
    with pytest.raises(ValueError, match=r"differ in 2\.bias"):
        penalty.bind({name: p for name, p in trained(model).items() if name != "2.bias"})
    with pytest.raises(ValueError, match=r"0\.weight has shape"):
        penalty.bind(trained(mlp(3, 5, 3)))


Data = tuple[Tensor, Tensor]


def tangents(base: nn.Module, inputs: Tensor) -> Tensor:
    """Returns J at the base's weights, (n C, P), so that f0 + J w is a linear model."""
    weights = {name: parameter.detach() for name, parameter in base.named_parameters()}
    jacobians = torch.func.jacrev(lambda p: torch.func.functional_call(base, p, (inputs,)))(weights)
    return torch.cat([jacobians[name].flatten(2) for name in weights], dim=2).flatten(0, 1)


def residual(base: nn.Module, task: Data) -> Tensor:
    return (task[1] - base(task[0]).detach()).flatten()


def solve(base: nn.Module, tasks: Sequence[Data], carried: Tensor, centre: Tensor) -> Tensor:
    """Returns the w that minimises the squared error on the tasks plus 1/2 (w - centre)' carried (w - centre)."""
    left, right = carried, carried @ centre
    for task in tasks:
        rows = tangents(base, task[0])
        left, right = left + rows.mT @ rows, right + rows.mT @ residual(base, task)
    return torch.linalg.solve(left, right)


def ridge(base: nn.Module) -> Tensor:
    return 0.05 * torch.eye(sum(p.numel() for p in base.parameters()), dtype=torch.double)


def joint(base: nn.Module, tasks: Sequence[Data]) -> Tensor:
    return solve(base, tasks, ridge(base), torch.zeros(len(ridge(base)), dtype=torch.double))


def stream(base: nn.Module, tasks: Sequence[Data], kind: str | None, seen: Sequence[Tensor] | None = None) -> Tensor:
    """Trains task after task with the curvature of the earlier ones; `seen` are the outputs in the loss."""
    w, carried = torch.zeros(len(ridge(base)), dtype=torch.double), ridge(base)
    for index, task in enumerate(tasks):
        w = solve(base, [task], carried, w)
        if kind is not None:
            mask = None if seen is None else seen[index]
            carried = carried + dense(
                estimate_curvature(kind, base, task[0].split(5), outputs=mask, vectors="unit"), base
            )
    return w


def make_tasks(count: int = 3, n: int = 12) -> list[Data]:
    """Returns tasks with differently distributed inputs and another network's outputs as targets."""
    teacher = mlp(4, 6, 3, seed=9)
    tasks = []
    for seed in range(count):
        inputs = vectors(n, 4, seed) + 1.5 * vectors(1, 4, 70 + seed)
        tasks.append((inputs, teacher(inputs).detach() + 0.1 * vectors(n, 3, 50 + seed)))
    return tasks


def test_exact_curvature_equals_joint_training_in_any_order() -> None:
    base, tasks = mlp(4, 6, 3), make_tasks()
    together = joint(base, tasks)
    for order in permutations(tasks):
        torch.testing.assert_close(stream(base, order, "exact"), together, atol=1e-9, rtol=1e-9)
    backwards = stream(base, tasks[::-1], "diagonal")
    assert (backwards - stream(base, tasks, "diagonal")).norm() > 0.01 * together.norm()


def test_the_joint_solution_minimises_loss_plus_penalty_of_the_last_task() -> None:
    base, tasks = mlp(4, 6, 3), make_tasks()
    together, before = joint(base, tasks), stream(base, tasks[:-1], "exact")
    curvatures = [estimate_curvature("exact", base, [task[0]]) for task in tasks[:-1]]
    inputs, _ = tasks[-1]
    theta0 = torch.cat([p.detach().flatten() for p in base.parameters()])
    penalty = QuadraticPenalty(
        curvatures, unflatten(theta0 + before, base), damping=ridge(base)[0, 0].item(), scale=len(inputs)
    )
    rows = tangents(base, inputs)
    slope = rows.mT @ (rows @ together - residual(base, tasks[-1])) / len(inputs)
    moved = mlp(4, 6, 3)
    for name, values in unflatten(theta0 + together, base).items():
        moved.get_parameter(name).data = values
        moved.get_parameter(name).grad = unflatten(slope, base)[name].clone()
    penalty.bind(trained(moved))
    penalty.add_to_gradients()
    total = torch.cat([parameter.grad.flatten() for parameter in moved.parameters()])
    assert slope.norm() > 1e-2
    assert total.norm() < 1e-9


def test_gaps_to_joint_training_are_ordered() -> None:
    base, tasks = mlp(4, 6, 3), make_tasks()

    def loss(w: Tensor) -> float:
        return sum(float((tangents(base, t[0]) @ w - residual(base, t)).square().sum()) / 2 for t in tasks)

    best = loss(joint(base, tasks))
    exact, kfac, diagonal, none = (loss(stream(base, tasks, kind)) - best for kind in (*KINDS, None))
    assert abs(exact) < 1e-9
    assert 1e-6 < kfac < diagonal < none


def class_tasks() -> list[Data]:
    """Returns two tasks of two classes each with one-hot targets of four outputs, 0 for absent classes."""
    tasks = []
    for first in (0, 2):
        labels = first + torch.arange(20) % 2
        inputs = vectors(20, 5, first) + 2.0 * vectors(4, 5, 77)[labels]
        tasks.append((inputs, nn.functional.one_hot(labels, 4).double()))
    return tasks


@pytest.mark.parametrize("kind", ["exact", "kfac"])  # K-FAC is exact in a head
def test_rows_of_new_classes_have_the_curvature_of_all_past_data(kind: str) -> None:
    head, tasks = nn.Linear(5, 4).double().eval(), class_tasks()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    together = joint(head, tasks)
    torch.testing.assert_close(stream(head, tasks, kind), together, atol=1e-9, rtol=1e-9)
    seen = [torch.tensor([True, True, False, False]), torch.ones(4, dtype=torch.bool)]
    without = stream(head, tasks, kind, seen)
    assert (without - together).norm() > 0.1 * together.norm()


def test_rows_of_unseen_classes_do_not_change_before_their_class_occurs() -> None:
    head, tasks = nn.Linear(5, 4).double().eval(), class_tasks()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    w = unflatten(stream(head, tasks[:1], "exact"), head)
    assert w["weight"][2:].abs().max() < 1e-12
    assert w["weight"][:2].abs().max() > 0.01
