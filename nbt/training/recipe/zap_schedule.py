"""When a zap resets rows of the head during fine-tuning, and which rows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nbt.seeds import generator
from nbt.settings import TransferSettings
from nbt.transfer.zap import draw_zapped_classes, zap


def is_zap_due(settings: TransferSettings, epoch: int) -> bool:
    """Tells whether a zap opens an epoch, 1 ... `settings.epochs`; never the first, so never after the last."""
    return settings.zap_period > 0 and epoch != 1 and (epoch - 1) % settings.zap_period == 0


def zap_head(
    head: nn.Linear, settings: TransferSettings, seed: int, epoch: int, classes: Sequence[int] | None = None
) -> None:
    """Zaps the head if the epoch opens with it.

    Which classes and which weights depend on seed and epoch alone. The optimiser's moments, the biases and the average
    of the weights go on as they are: the first two as in the authors' code, and the average because it is one of heads
    that all belong to the same features.

    Args:
        head: (C, D).
        settings: Period, share of the classes, scale.
        seed: The trial's.
        epoch: The one that is about to begin.
        classes: Whose rows may be reset; all when None.
    """
    if is_zap_due(settings, epoch):
        rng = generator(seed, "zap", epoch)
        count = head.out_features if classes is None else len(classes)
        drawn = draw_zapped_classes(count, settings.zap_fraction, rng)
        chosen = drawn if classes is None else [classes[index] for index in (range(count) if drawn is None else drawn)]
        zap(head, chosen, settings.zap_scale, rng)
