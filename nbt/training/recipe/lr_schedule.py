"""Warm-up and cosine: the share of the peak rate at each step."""

from __future__ import annotations

import math


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Returns the factor of step `step` (0 ... total - 1): a linear rise, then half a cosine towards 0.

    Args:
        step: Steps done before this one.
        total: Steps of the whole training, 1 or more.
        warmup: Share of them that the rise takes, 0 ... 1.

    Returns:
        Above 0, up to 1; the step after the last would have 0.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
