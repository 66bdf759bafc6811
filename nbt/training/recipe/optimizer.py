"""The optimiser of a training, and the steps that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nbt.devices import autocast
from nbt.settings import TransferSettings
from nbt.training.recipe.eager_optimizers import SGD, AdamW
from nbt.training.recipe.loss import TrainingLoss
from nbt.training.recipe.lr_schedule import lr_factor
from nbt.training.recipe.mixup import mix_inputs, mixed_loss
from nbt.transfer.layer_lr import ParameterGroup
from nbt.transfer.technique import HookChain, TrainingRun


def make_optimizer(settings: TransferSettings, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """Builds the fused optimiser without weight decay; `nbt.training.recipe.decay` applies all decay."""
    param_groups = [{"params": group.parameters, "lr": group.lr} for group in groups]
    if settings.optimizer == "adamw":
        return AdamW(param_groups, betas=(settings.momentum, 0.999), weight_decay=0.0, fused=True)
    return SGD(
        param_groups, lr=settings.body_lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
    )


def optimizer_facts(groups: Sequence[ParameterGroup]) -> dict[str, Any]:
    """Returns the number of trained parameters, the range of their peak learning rates, and the strongest decay."""
    return {
        "trainable_parameters": sum(parameter.numel() for group in groups for parameter in group.parameters),
        "learning_rates": [min(group.lr for group in groups), max(group.lr for group in groups)],
        "weight_decay": max(group.alpha + group.beta for group in groups),
    }


class TrainStep:
    """One step of the optimiser on a batch.

    Args:
        run: The training.
        network: Maps inputs of the first unit that trains, and the number of frozen units, to logits.
        loss: The loss.
        hooks: Hooks of the techniques.
        peak_lrs: Peak learning rate of each parameter group.
        device: Device of the training.
    """

    def __init__(
        self,
        run: TrainingRun,
        network: nn.Module,
        loss: TrainingLoss,
        hooks: HookChain,
        peak_lrs: Sequence[float],
        device: torch.device,
    ) -> None:
        self._run, self._network, self._loss, self._hooks = run, network, loss, hooks
        self._peak_lrs, self._device = peak_lrs, device

    def __call__(self, step: int, inputs: torch.Tensor, truth: torch.Tensor, mixup_share: float) -> torch.Tensor:
        """Takes step number `step` of the training (from 0); returns the mean loss of the batch, on the device."""
        run, hooks, optimizer = self._run, self._hooks, self._run.optimizer
        for before_step in hooks.before_step:
            before_step(step)
        with autocast(self._device):
            logits = self._network(mix_inputs(inputs, mixup_share), run.frozen).float()
        loss = mixed_loss(self._loss, logits, truth, mixup_share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        factor = lr_factor(step, run.steps, run.settings.warmup)
        for technique_factor in hooks.lr_factor:
            factor *= technique_factor(step)
        for group, peak in zip(optimizer.param_groups, self._peak_lrs, strict=True):
            group["lr"] = peak * factor
        for after_backward in hooks.after_backward:
            after_backward(factor)
        optimizer.step()
        for after_step in hooks.after_step:
            after_step()
        return loss.detach()
