"""Encoding: settings as numbers that models of accuracy learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nbt.search.space import Dimension, Space, Value
from nbt.settings import TransferSettings

Matrix = NDArray[np.float64]

_ADAM_GAIN = 1.0  # AdamW wants about a tenth of SGD's rates: see search_spaces/non_binary.yaml.
_NO_PULL = -7.0
_GRID = 9


class Encoder:
    """Turns repaired settings into vectors: first one number a parameter of the space, 0 ... 1, then derived ones.

    Categorical dimensions count by the place of their choice: augmentations, batch sizes and averages are ordered.
    The derived numbers are what techniques.md says matters more than its parts: effective learning rates, lr / (1 -
    momentum) per image (Li et al. 2020, arXiv 2002.11770), of the body over what really trains and of the head; the
    share of units that keep their weights and train; the strength of the pull to the pretrained weights.

    Args:
        space: Its ranges scale the numbers.
    """

    def __init__(self, space: Space) -> None:
        self._dimensions = space.dimensions
        self.names = (*space.parameters, "body_rate", "head_rate", "tuned_share", "pull")
        self.n_parameters = len(space.parameters)

    def encode(self, settings: Sequence[TransferSettings]) -> Matrix:
        """Returns one row a setting, float64 (n, len(names))."""
        return np.array([self._row(one) for one in settings]).reshape(len(settings), len(self.names))

    def _row(self, settings: TransferSettings) -> list[float]:
        row: list[float] = []
        for dimension in self._dimensions:
            value = getattr(settings, dimension.name)
            row += [_place(dimension, one) for one in (value if dimension.knots else (value,))]
        return row + _derived(settings)


def _place(dimension: Dimension, value: Value) -> float:
    if dimension.kind == "categorical":
        return dimension.choices.index(value) / max(1, len(dimension.choices) - 1)
    assert dimension.low is not None and dimension.high is not None
    low, high, number = float(dimension.low), float(dimension.high), float(value)
    if dimension.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low) if high > low else 0.0


@lru_cache(maxsize=4096)
def _derived(settings: TransferSettings) -> list[float]:
    """Returns the derived numbers, each in decades or shares."""
    adam = settings.optimizer == "adamw"
    gain = _ADAM_GAIN if adam else -math.log10(1.0 - settings.momentum)
    gain -= math.log10(settings.batch_size / 32)
    depths = np.linspace(settings.frozen_depth, 1.0, _GRID)
    shape = float(np.interp(depths, (0.0, 0.5, 1.0), settings.layer_lr_shape).mean())
    pull = settings.decay_strength * settings.sp_mix
    return [
        math.log10(settings.body_lr) + shape + gain,
        math.log10(settings.head_lr) + gain,
        settings.transfer_depth - settings.frozen_depth,
        math.log10(pull) if pull > 10**_NO_PULL else _NO_PULL,
    ]
