"""The penalty of a task of a stream, as its optimiser can follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nbt.models.backbone import Backbone
from nbt.settings import TransferSettings
from nbt.transfer.curvature.estimate import Curvature, DiagonalCurvature
from nbt.transfer.layer_lr import parameter_groups
from nbt.transfer.quadratic_penalty import QuadraticPenalty

# Gradient descent with Nesterov's momentum mu diverges where rate times curvature is above 2 (1 + mu) / (1 + 2 mu),
# 1.36 for .9; what this leaves is for the loss.
_MAX_RATE_TIMES_CURVATURE = 0.5


def make_penalty(
    curvatures: Sequence[Curvature],
    centre: Mapping[str, torch.Tensor],
    model: Backbone,
    recipe: TransferSettings,
    n_train: int,
) -> QuadraticPenalty:
    """Returns the penalty on a task.

    A diagonal has elements that are orders of magnitude above the others, and SGD at the rate that the others need
    would diverge in them. There they are cut to what the rate can follow: such a weight hardly moves either way.

    Args:
        curvatures: Of past tasks.
        centre: Weights after the last task, by name.
        model: Whose parameters train.
        recipe: Repaired.
        n_train: Training images of the task.
    """
    if recipe.optimizer == "sgd":
        factor = recipe.penalty_strength / n_train
        rates = peak_learning_rates(model, recipe)
        curvatures = [
            _clip_curvature(one, rates, factor) if isinstance(one, DiagonalCurvature) else one for one in curvatures
        ]
    return QuadraticPenalty(curvatures, centre, strength=recipe.penalty_strength, scale=n_train)


def peak_learning_rates(model: Backbone, recipe: TransferSettings) -> dict[str, float]:
    """Returns the peak rate of every parameter that trains, by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model.units, model.head, recipe)
    return {names[parameter]: group.lr for group in groups for parameter in group.parameters}


def _clip_curvature(curvature: DiagonalCurvature, rates: Mapping[str, float], factor: float) -> DiagonalCurvature:
    """Returns a diagonal none of whose elements, times factor and rate, is above `_MAX_RATE_TIMES_CURVATURE`."""
    cut = {
        name: v.clamp_max(_MAX_RATE_TIMES_CURVATURE / (factor * rates[name])) for name, v in curvature.diagonal.items()
    }
    return DiagonalCurvature(cut, curvature.samples)
