"""The hooks by which a technique takes part in a training; `nbt.settings.technique` registers a technique."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.settings import SETTINGS, TECHNIQUES, TransferSettings


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One training, as far as the hooks of techniques need it.

    Attributes:
        settings: The repaired settings.
        seed: Seed of the training; `nbt.seeds.generator(seed, name, epoch)` gives an independent generator.
        model: The backbone; `model.units` and `model.head` are its parts, on the device of the training.
        frozen: Number of units, from the input, that do not train.
        optimizer: The optimiser of all parameters that train.
        steps_per_epoch: Number of optimiser steps per epoch.
    """

    settings: TransferSettings
    seed: int
    model: nn.Module
    frozen: int
    optimizer: torch.optim.Optimizer
    steps_per_epoch: int

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that train."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def steps(self) -> int:
        """Number of optimiser steps of the whole training."""
        return self.settings.epochs * self.steps_per_epoch


class TrainingHooks:
    """What a technique does at certain points of a training; a technique overrides what it needs.

    Steps are numbered from 0 over the whole training, epochs from 1. A hook must not wait for the device: a value of a
    tensor on a GPU may be read between epochs only. All randomness must derive from the seed of the training and the
    number of the step or epoch, so that a resumed training equals one that was never interrupted.
    """

    def before_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch; the modules are already in training mode."""

    def after_epoch(self) -> None:
        """Called after the last step of an epoch, also if the epoch raised an exception."""

    def before_step(self, step: int) -> None:
        """Called before the forward pass of a step."""

    def lr_factor(self, step: int) -> float:
        """Returns a factor of the learning rates of a step."""
        return 1.0

    def after_backward(self, factor: float) -> None:
        """Called with the gradients of a step in `.grad`, before the optimiser uses them.

        Args:
            factor: The learning rates of the step as a share of their peaks.
        """

    def after_step(self) -> None:
        """Called after the optimiser has changed the weights."""

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Encloses every evaluation."""
        yield

    def after_training(self) -> None:
        """Called once after the last epoch; the weights of the model are then the result of the training."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint needs besides the weights, tensors and plain values; {} for nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the result of `state_dict`, whose tensors are on the CPU."""


class HookChain:
    """The hooks of all techniques of a training, in their order.

    Args:
        hooks: Hooks by name of the technique.

    Attributes:
        before_step: The methods of that name of the hooks that override it, so that a step calls no empty method; in
            the same way `lr_factor`, `after_backward` and `after_step`.
    """

    def __init__(self, hooks: dict[str, TrainingHooks]) -> None:
        self._hooks = hooks
        self.before_step: list[Callable[[int], None]] = self._overridden("before_step")
        self.lr_factor: list[Callable[[int], float]] = self._overridden("lr_factor")
        self.after_backward: list[Callable[[float], None]] = self._overridden("after_backward")
        self.after_step: list[Callable[[], None]] = self._overridden("after_step")

    def _overridden(self, name: str) -> list[Any]:
        base = getattr(TrainingHooks, name)
        return [getattr(hook, name) for hook in self._hooks.values() if getattr(type(hook), name) is not base]

    @contextmanager
    def epoch(self, epoch: int) -> Iterator[None]:
        """Encloses the training steps of an epoch."""
        with ExitStack() as after:
            for hook in self._hooks.values():
                after.callback(hook.after_epoch)
                hook.before_epoch(epoch)
            yield

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Encloses an evaluation."""
        with ExitStack() as stack:
            for hook in self._hooks.values():
                stack.enter_context(hook.evaluation())
            yield

    def after_training(self) -> None:
        """Calls the hooks after the last epoch."""
        for hook in self._hooks.values():
            hook.after_training()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the states that are not empty, by name of the technique."""
        states = {name: hook.state_dict() for name, hook in self._hooks.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, dict[str, Any]]) -> None:
        """Restores the result of `state_dict`."""
        for name, state in states.items():
            self._hooks[name].load_state_dict(state)


def registered_hooks(run: TrainingRun) -> dict[str, TrainingHooks]:
    """Returns the hooks of the registered techniques that the settings of a training use, by name.

    Raises:
        UsageError: The settings have a value of a technique that is not registered in this process.
    """
    unknown = [name for name, _ in run.settings.extensions if name not in SETTINGS]
    if unknown:
        raise UsageError(
            f"{unknown[0]}: the technique of this setting is not registered in this process; register it in a module "
            "that the workers can import (nbt.settings.register)"
        )
    return {name: item.hooks(run) for name, item in TECHNIQUES.items() if item.is_used(run.settings)}
