"""Learning-rate schedule: linear warm-up, then a cosine."""

from __future__ import annotations

import math


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Returns the learning rate of a step as a factor of its peak: a linear rise, then half a cosine towards 0.

    Args:
        step: Number of the step, 0 ... total - 1.
        total: Number of steps of the training, 1 or more.
        warmup: Share of the steps in which the factor rises, 0 ... 1.

    Returns:
        A factor above 0, up to 1; it would reach 0 at step `total`.
    """
    warmup_steps = round(warmup * total)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1, total - warmup_steps)))
