"""Helpers that run complete trials and extract their weights and losses."""

from __future__ import annotations

from typing import Any

import torch

from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.fine_tune import FineTuneResult, fine_tune


def run(task: Task, settings: TransferSettings, seed: int = 0, **options: Any) -> FineTuneResult:
    trial = fine_tune(task, settings, seed, **options)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            return end.value


def weights(tuned: FineTuneResult) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}


def losses(tuned: FineTuneResult) -> list[tuple[float, float | None, float | None]]:
    return [(epoch.train_loss, epoch.val_loss, epoch.val_accuracy) for epoch in tuned.curve]
