"""Continuous per-layer learning rates: a curve over the units, and the parameter groups that follow from it.

The curve has three knots (input, middle, top), as log10 multipliers on the body rate, and is linear between them: the
authors' three groups with a movable split (arXiv 2107.08585) and layer-wise geometric decay are special cases.
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
    """Parameters that share a rate and a pull.

    Attributes:
        parameters: Trained parameters.
        lr: Peak learning rate.
        alpha: Strength of the pull to the pretrained weights.
        beta: Strength of the pull to zero.
    """

    parameters: list[nn.Parameter]
    lr: float
    alpha: float
    beta: float


def rate_multipliers(shape: Sequence[float], n_units: int) -> list[float]:
    """Returns the multiplier of each unit's rate, input first.

    Args:
        shape: log10 multipliers at the input, the middle and the top.
        n_units: Number of units, 1 or more. A single unit is the top.

    Returns:
        `n_units` positive multipliers.
    """
    place = np.linspace(0.0, 1.0, n_units) if n_units > 1 else np.ones(1)
    curve = np.interp(place, np.linspace(0.0, 1.0, len(shape)), np.asarray(shape, dtype=float))
    return [float(10.0**value) for value in curve]


def geometric_shape(decay: float, n_units: int) -> tuple[float, float, float]:
    """Returns the `layer_lr_shape` in which every unit has `decay` times the rate of the unit above it.

    Args:
        decay: Factor a unit, above 0; 1 is flat.
        n_units: Number of units, 1 or more.

    Raises:
        ValueError: `decay` is not positive.
    """
    if decay <= 0:
        raise ValueError(f"decay: {decay} is not above 0")
    at_input = (n_units - 1) * math.log10(decay)
    return (at_input, at_input / 2, 0.0)


def parameter_groups(units: nn.ModuleList, head: nn.Module, settings: TransferSettings) -> list[ParameterGroup]:
    """Returns the trained parameters in groups of equal rate and pull; each lands in exactly one, by identity.

    On transferred units that L2-SP reaches, `alpha = sp_mix * decay_strength` and `beta = (1 - sp_mix) *
    decay_strength`; everywhere else alpha is 0 and beta the whole strength. Vectors and scalars (biases, affine terms
    of normalisation, layer scales and temperatures, in whatever shape they are kept) are not decayed at all, as is
    common practice. Tokens, position embeddings and tables of relative positions are matrices and are.

    Args:
        units: Units of the backbone; those that do not require gradients are left out.
        head: The classifier.
        settings: Repaired settings.
    """
    multipliers = rate_multipliers(settings.layer_lr_shape, len(units))
    anchored = units_of(min(settings.sp_depth, settings.transfer_depth), len(units))
    alpha = settings.sp_mix * settings.decay_strength
    pull = (alpha, settings.decay_strength - alpha)
    plain = (0.0, settings.decay_strength)
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()

    def add(module: nn.Module, lr: float, strengths: tuple[float, float]) -> None:
        for parameter in _unseen_parameters(module, seen):
            key = (lr, *strengths) if _is_matrix(parameter) else (lr, 0.0, 0.0)
            groups.setdefault(key, []).append(parameter)

    for index, unit in enumerate(units):
        add(unit, settings.body_lr * multipliers[index], pull if index < anchored else plain)
    add(head, settings.head_lr, plain)
    return [ParameterGroup(parameters, *key) for key, parameters in groups.items()]


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Tells matrices and filters from vectors, which may be kept as (C, 1, 1) to be multiplied with maps."""
    return parameter.ndim > 1 and parameter.numel() > len(parameter)


def _unseen_parameters(module: nn.Module, seen: set[int]) -> Iterator[nn.Parameter]:
    """Yields the trained parameters not seen before; a parameter that two units share belongs to the lower one."""
    for parameter in module.parameters():
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            yield parameter
