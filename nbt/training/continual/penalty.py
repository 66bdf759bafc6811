"""Quadratic penalty of a stage, with diagonal curvatures clipped to what the learning rate allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nbt.models.backbone import Backbone
from nbt.settings import TransferSettings
from nbt.transfer.curvature.estimate import Curvature, DiagonalCurvature
from nbt.transfer.layer_lr import parameter_groups
from nbt.transfer.quadratic_penalty import QuadraticPenalty

# Gradient descent with Nesterov momentum mu diverges if learning rate times curvature is above 2 (1 + mu) / (1 + 2 mu),
# 1.36 for mu = 0.9. The rest is left to the curvature of the loss.
_MAX_RATE_TIMES_CURVATURE = 0.5


def make_penalty(
    curvatures: Sequence[Curvature],
    centre: Mapping[str, torch.Tensor],
    model: Backbone,
    recipe: TransferSettings,
    n_train: int,
) -> QuadraticPenalty:
    """Returns the penalty of a stage.

    Some elements of a diagonal curvature are orders of magnitude larger than the others, so that SGD diverges in them
    at the learning rate that the others need. With SGD these elements are clipped to a stable value; the corresponding
    weights hardly change with or without clipping.

    Args:
        curvatures: Curvatures of past tasks.
        centre: Weights after the previous task, by name.
        model: Model whose parameters train.
        recipe: The repaired recipe.
        n_train: Number of training images of the stage.
    """
    if recipe.optimizer == "sgd":
        factor = recipe.stream.penalty_strength / n_train
        rates = peak_learning_rates(model, recipe)
        curvatures = [
            _clip_curvature(curvature, rates, factor) if isinstance(curvature, DiagonalCurvature) else curvature
            for curvature in curvatures
        ]
    return QuadraticPenalty(curvatures, centre, strength=recipe.stream.penalty_strength, scale=n_train)


def peak_learning_rates(model: Backbone, recipe: TransferSettings) -> dict[str, float]:
    """Returns the peak learning rate of every trainable parameter, by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model.units, model.head, recipe)
    return {names[parameter]: group.lr for group in groups for parameter in group.parameters}


def _clip_curvature(curvature: DiagonalCurvature, rates: Mapping[str, float], factor: float) -> DiagonalCurvature:
    """Returns the diagonal with elements times `factor` and rate clipped to `_MAX_RATE_TIMES_CURVATURE`."""
    clipped = {
        name: diagonal.clamp_max(_MAX_RATE_TIMES_CURVATURE / (factor * rates[name]))
        for name, diagonal in curvature.diagonal.items()
    }
    return DiagonalCurvature(clipped, curvature.samples)
