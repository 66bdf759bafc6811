"""Strata of a recording: settings that change the default recipe along one axis alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nbt.settings import TransferSettings, repair
from nbt.tuning.baseline_recipes import default_recipe

STRATUM_SIZE = 10

_PROBES = [{"frozen_depth": 1.0, "head_lr": lr} for lr in (0.01, 0.05)]
_FULL = [
    {"head_lr": lr, "body_lr": lr, **penalty}
    for lr in (0.005, 0.01, 0.05)
    for penalty in ({}, {"sp_mix": 1.0, "decay_strength": 0.01})
]
_SCRATCH = [{"transfer_depth": 0.0, "head_lr": lr, "body_lr": lr} for lr in (0.01, 0.05)]


def _binary() -> list[Mapping[str, Any]]:
    """All or nothing: a linear probe, full fine-tuning with L2 or L2-SP, or training from scratch; common rates."""
    return [*_PROBES, *_FULL, *_SCRATCH]


def _depth() -> list[Mapping[str, Any]]:
    shares = (0.2, 0.4, 0.6, 0.8, 0.9)
    return [{name: share} for share in shares for name in ("transfer_depth", "frozen_depth")]


def _rates() -> list[Mapping[str, Any]]:
    """Rates of head and body from a tenth to ten times the default, and a slope from input to top."""
    return [
        {
            "head_lr": 0.1 ** (2.5 - 2.0 * head),
            "body_lr": 0.1 ** (3.0 - 2.0 * body),
            "layer_lr_shape": (-1.5 * slope, -0.75 * slope, 0.0),
        }
        for head, body, slope in _sobol_points(3)
    ]


def _mix() -> list[Mapping[str, Any]]:
    """Strength, mix and depth of L2 and L2-SP."""
    return [
        {"decay_strength": 0.1 ** (4.0 - 3.0 * strength), "sp_mix": mix, "sp_depth": depth}
        for strength, mix, depth in _sobol_points(3)
    ]


_AXES: Mapping[str, Callable[[], list[Mapping[str, Any]]]] = {
    "binary": _binary,
    "depth": _depth,
    "rates": _rates,
    "mix": _mix,
}
AXES = tuple(_AXES)
"""Names of the axes."""


def stratum(axis: str, epochs: int) -> list[TransferSettings]:
    """Returns the `STRATUM_SIZE` repaired settings of an axis, the same for every task.

    Args:
        axis: One of `AXES`.
        epochs: Epochs of every setting.
    """
    default = default_recipe(epochs)
    return [repair(default.replace(**changes)) for changes in _AXES[axis]()]


def _sobol_points(dimensions: int) -> list[list[float]]:
    """Returns `STRATUM_SIZE` points that fill the unit cube evenly, rounded so that files show short numbers."""
    from scipy.stats import qmc

    points = qmc.Sobol(dimensions, scramble=True, rng=0).random(16)[:STRATUM_SIZE]
    return [[round(float(value), 3) for value in point] for point in points]
