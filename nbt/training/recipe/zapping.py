"""Zaps during fine-tuning: the epochs at which rows of the head are reset, the rows, and their warm-up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nbt.seeds import generator
from nbt.transfer.technique import TrainingHooks, TrainingRun
from nbt.transfer.zap import draw_zapped_classes, zap


class Zapping(TrainingHooks):
    """Resets rows of the head at the start of the epochs that the settings name.

    The drawn classes and their new weights depend on the seed and the epoch only. The optimiser's moments, the biases
    and the moving average of the weights do not change: moments and biases as in the authors' code, the average because
    it averages over heads for the same features.

    Args:
        run: The training.
        classes: Classes whose rows may be reset; None for all.
    """

    def __init__(self, run: TrainingRun, classes: Sequence[int] | None = None) -> None:
        self._head: nn.Linear = run.model.head  # type: ignore[assignment]
        self._settings, self._seed, self._classes = run.settings, run.seed, classes

    def before_epoch(self, epoch: int) -> None:
        """Zaps the head if the epoch starts with a zap."""
        if self._settings.is_zap_due(epoch):
            zap(self._head, *self._draw(epoch))

    def zapped_rows(self, epoch: int) -> Sequence[int]:
        """Returns the rows that the zap at the start of an epoch resets."""
        rows = self._draw(epoch)[0]
        return range(self._head.out_features) if rows is None else rows

    def _draw(self, epoch: int) -> tuple[Sequence[int] | None, str, torch.Generator]:
        """Returns the classes of a zap (None for the whole head), the scale, and the generator of the new weights."""
        rng = generator(self._seed, "zap", epoch)
        count = self._head.out_features if self._classes is None else len(self._classes)
        drawn = draw_zapped_classes(count, self._settings.zap_fraction, rng)
        if self._classes is not None:
            drawn = [self._classes[index] for index in (range(count) if drawn is None else drawn)]
        return drawn, self._settings.zap_scale, rng


class ZapWarmup(TrainingHooks):
    """Scales the steps of the rows that a zap has reset, linearly from 0 to 1, after each zap.

    The whole step of the optimiser is scaled, so that the rate of the rows has the same meaning with SGD and AdamW.

    Args:
        run: The training.
        zapping: The zaps of the training.
    """

    def __init__(self, run: TrainingRun, zapping: Zapping) -> None:
        settings = run.settings
        self._run, self._zapping = run, zapping
        self._weight: torch.Tensor = run.model.head.weight.detach()  # type: ignore[union-attr,operator]
        self._steps = round(settings.zap_warmup * settings.zap_period * run.steps_per_epoch)
        self._rows, self._start = torch.empty(0, dtype=torch.int64), -self._steps
        self._before: torch.Tensor | None = None
        self._share = 1.0

    def before_epoch(self, epoch: int) -> None:
        """Finds the rows of the last zap, which may be that of an earlier epoch."""
        last = next((number for number in range(epoch, 0, -1) if self._run.settings.is_zap_due(number)), None)
        if last is not None:
            self._start = (last - 1) * self._run.steps_per_epoch
            self._rows = torch.tensor(self._zapping.zapped_rows(last), device=self._weight.device)

    def before_step(self, step: int) -> None:
        """Copies the rows during their warm-up."""
        since = step - self._start
        self._share = (since + 1) / (self._steps + 1)
        self._before = self._weight[self._rows] if since < self._steps else None

    def after_step(self) -> None:
        """Scales the step of the rows."""
        if self._before is not None:
            self._weight[self._rows] = self._before.lerp(self._weight[self._rows], self._share)
