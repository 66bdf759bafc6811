"""Optimisers without the compiler compute what those of PyTorch compute, and the compiler is not imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from nbt.training.recipe import eager_optimizers

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
OPTIMIZERS = [("SGD", SGD), ("Adam", {"lr": 0.01}), ("AdamW", {"lr": 0.01, "weight_decay": 0.1})]


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(8, 5, generator=generator)).square().mean().backward()
        optimizer.step()


def make(owner: Any, name: str, options: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    groups = [{"params": list(network[0].parameters())}, {"params": list(network[2].parameters()), "lr": 0.02}]
    return network, getattr(owner, name)(groups, fused=True, **options)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_steps_and_states_equal_those_of_pytorch_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    runs = [make(owner, name, options) for owner in (eager_optimizers, torch.optim)]
    for network, optimizer in runs:
        steps(network, optimizer, 4, seed=1)
    # Each continues from the state of the other, as from a checkpoint.
    states = [(network.state_dict(), optimizer.state_dict()) for network, optimizer in runs]
    continued = [make(owner, name, options) for owner in (eager_optimizers, torch.optim)]
    for (network, optimizer), (weights, state) in zip(continued, reversed(states), strict=True):
        network.load_state_dict(weights)
        optimizer.load_state_dict(state)
        steps(network, optimizer, 3, seed=2)
    for found in (runs, continued):
        for parameter, expected in zip(found[0][0].parameters(), found[1][0].parameters(), strict=True):
            assert torch.equal(parameter, expected)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_a_step_records_no_gradients_and_runs_its_hooks(name: str, options: dict[str, Any]) -> None:
    network, optimizer = make(eager_optimizers, name, options)
    calls: list[str] = []
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    steps(network, optimizer, 2, seed=1)
    assert calls == ["step"] * 2
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in network.parameters())


def test_a_training_does_not_import_the_compiler() -> None:
    script = (
        "import sys, nbt, nbt.training.run_trial\n"
        "task = nbt.load_task('digits', backbone='conv3(width=8)', weights='none', shots=8)\n"
        "for name in ('sgd', 'adamw'):\n"
        "    [epoch] = nbt.fine_tune(task, nbt.TransferSettings(epochs=1, optimizer=name))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
