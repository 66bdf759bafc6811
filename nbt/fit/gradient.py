"""Relative gradient norms: which units a linear probe would change most (Lee et al. 2023, arXiv 2210.11466).

In surgical fine-tuning, a unit with a large norm of its gradient, relative to that of its weights, is worth training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nbt.models.backbone import Backbone


@torch.enable_grad()
def relative_gradient_norms(
    model: Backbone, images: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> list[float]:
    """Returns the gradient norm of each unit divided by the norm of its weights, from one backward pass.

    The loss is the mean over the images of half the squared error of a linear head on the features. The head should be
    fitted (`nbt.fit.ridge.ridge_head`), because a head of zeros has no gradient below it and a random one has a random
    gradient. The norms are over all parameters of a unit.

    Args:
        model: The backbone, in evaluation mode, on the device of the other arguments.
        images: (n, 3, H, W).
        targets: One-hot labels, (n, C).
        weight: Weights of the head, (C, D).
        bias: Biases of the head, (C,).

    Returns:
        One value per unit, 0 or more; NaN for a unit without parameters, or whose parameters are all 0.
    """
    errors = model.features(images) @ weight.T + bias - targets
    parameters = [list(unit.parameters()) for unit in model.units]
    flat = [parameter for unit in parameters for parameter in unit]
    gradients = iter(torch.autograd.grad(0.5 * errors.square().sum() / len(images), flat, allow_unused=True))
    ratios = []
    for unit in parameters:
        gradient_norm = _norm(islice(gradients, len(unit)))
        weight_norm = _norm(unit)
        ratios.append(gradient_norm / weight_norm if weight_norm else math.nan)
    return ratios


def _norm(tensors: Iterable[torch.Tensor | None]) -> float:
    """Returns the norm of several tensors together; None counts as 0."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors if tensor is not None))
