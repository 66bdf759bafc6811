"""Continuous per-layer learning rates: a curve over the units, and the parameter groups that it defines.

The curve has three knots (input, middle, top), given as log10 multipliers of the body rate, with linear interpolation
between them. The authors' three groups with a movable split (arXiv 2107.08585) and layer-wise geometric decay are
special cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from nbt.settings import TransferSettings
from nbt.transfer.transfer_depth import units_of


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters with the same learning rate and L2-SP strengths.

    Attributes:
        parameters: The parameters.
        lr: Peak learning rate.
        alpha: Strength of the decay towards the pretrained weights.
        beta: Strength of the decay towards zero.
    """

    parameters: list[nn.Parameter]
    lr: float
    alpha: float
    beta: float


def rate_multipliers(shape: Sequence[float], n_units: int) -> list[float]:
    """Returns the multiplier of each unit's learning rate, in order from the input.

    Args:
        shape: log10 multipliers at the input, the middle and the top.
        n_units: Number of units, 1 or more. A single unit counts as the top.

    Returns:
        `n_units` positive multipliers.
    """
    position = np.linspace(0.0, 1.0, n_units) if n_units > 1 else np.ones(1)
    curve = np.interp(position, np.linspace(0.0, 1.0, len(shape)), np.asarray(shape, dtype=float))
    return [float(10.0**value) for value in curve]


def geometric_shape(decay: float, n_units: int) -> tuple[float, float, float]:
    """Returns the `layer_lr_shape` in which every unit has `decay` times the rate of the next unit towards the head.

    Args:
        decay: Factor per unit, above 0; 1 gives equal rates.
        n_units: Number of units, 1 or more.

    Raises:
        ValueError: `decay` is not positive.
    """
    if decay <= 0:
        raise ValueError(f"decay: {decay} is not above 0")
    at_input = (n_units - 1) * math.log10(decay)
    return (at_input, at_input / 2, 0.0)


def parameter_groups(units: nn.ModuleList, head: nn.Module, settings: TransferSettings) -> list[ParameterGroup]:
    """Returns the trainable parameters in groups of equal rate and decay; each parameter belongs to exactly one group.

    On the transferred units up to `sp_depth`, `alpha = sp_mix * decay_strength` and `beta = (1 - sp_mix) *
    decay_strength`; elsewhere alpha is 0 and beta the whole strength. Vectors and scalars (biases, affine parameters of
    normalisations, layer scales and temperatures, of any shape) are not decayed, as is common practice. Tokens,
    position embeddings and tables of relative positions are matrices and are decayed.

    Args:
        units: Units of the backbone; parameters that do not require gradients are left out.
        head: The classifier.
        settings: Settings after repair.
    """
    multipliers = rate_multipliers(settings.layer_lr_shape, len(units))
    anchored = units_of(min(settings.sp_depth, settings.transfer_depth), len(units))
    alpha = settings.sp_mix * settings.decay_strength
    sp_strengths = (alpha, settings.decay_strength - alpha)
    plain_strengths = (0.0, settings.decay_strength)
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()

    def add(module: nn.Module, lr: float, strengths: tuple[float, float]) -> None:
        for parameter in _unseen_parameters(module, seen):
            key = (lr, *strengths) if _is_matrix(parameter) else (lr, 0.0, 0.0)
            groups.setdefault(key, []).append(parameter)

    for index, unit in enumerate(units):
        add(unit, settings.body_lr * multipliers[index], sp_strengths if index < anchored else plain_strengths)
    add(head, settings.head_lr, plain_strengths)
    return [ParameterGroup(parameters, *key) for key, parameters in groups.items()]


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Returns whether a parameter is a matrix or filter.

    Vectors may have the shape (C, 1, 1) to be multiplied with maps.
    """
    return parameter.ndim > 1 and parameter.numel() > len(parameter)


def _unseen_parameters(module: nn.Module, seen: set[int]) -> Iterator[nn.Parameter]:
    """Yields the trainable parameters not seen before; a parameter shared by two units belongs to the lower one."""
    for parameter in module.parameters():
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            yield parameter
