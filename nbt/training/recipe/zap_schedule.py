"""Schedule of zaps during fine-tuning: the epochs at which rows of the head are reset, and the rows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nbt.seeds import generator
from nbt.settings import TransferSettings
from nbt.transfer.zap import draw_zapped_classes, zap


def is_zap_due(settings: TransferSettings, epoch: int) -> bool:
    """Returns whether epoch `epoch` (1 ... `settings.epochs`) starts with a zap; the first epoch never does."""
    return settings.zap_period > 0 and epoch != 1 and (epoch - 1) % settings.zap_period == 0


def zap_head(
    head: nn.Linear, settings: TransferSettings, seed: int, epoch: int, classes: Sequence[int] | None = None
) -> None:
    """Zaps the head if the epoch starts with a zap.

    The drawn classes and their new weights depend on `seed` and `epoch` only. The optimiser's moments, the biases and
    the moving average of the weights do not change: moments and biases as in the authors' code, the average because it
    averages over heads for the same features.

    Args:
        head: The head, with weights (C, D).
        settings: Period, share of the classes and scale of the zaps.
        seed: Seed of the trial.
        epoch: Number of the epoch that starts.
        classes: Classes whose rows may be reset; None for all.
    """
    if is_zap_due(settings, epoch):
        rng = generator(seed, "zap", epoch)
        count = head.out_features if classes is None else len(classes)
        drawn = draw_zapped_classes(count, settings.zap_fraction, rng)
        chosen = drawn if classes is None else [classes[index] for index in (range(count) if drawn is None else drawn)]
        zap(head, chosen, settings.zap_scale, rng)
