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
