"""Zapping: rows of the last layer are repeatedly re-initialised at random while features are trained.

Features trained with repeatedly re-initialised heads adapt faster and transfer better. Frati, Traft, Clune and Cheney,
"Reset It and Forget It: Relearning Last-Layer Weights Improves Continual and Transfer Learning", arXiv 2310.07996. As
in the authors' code, biases and the optimiser's state are kept by default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from nbt.errors import UsageError
from nbt.settings import ZAP_SCALES


@torch.no_grad()
def zap(
    head: nn.Module,
    classes: Iterable[int] | torch.Tensor | None = None,
    scale: str = "per_row",
    generator: torch.Generator | None = None,
    *,
    reset_bias: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Overwrites the weight rows of some classes in place with new Kaiming-normal values.

    They are drawn on the generator's device (on the CPU without a generator) and then moved, so that the same seed
    gives the same rows on any device.

    Args:
        head: The last layer, linear, with weight (K, D) for D features.
        classes: Classes to zap, each 0 ... K-1; repetitions count once. None zaps the whole head.
        scale: Standard deviation of the new values: "per_row" is sqrt(2 / D) for any number of classes; "as_released"
            is that of the authors' code, sqrt(2 / D) for one class and sqrt(2 / (K D)) for K classes at once.
        generator: Random generator; PyTorch's global one when None.
        reset_bias: Whether the biases of those classes are set to 0.
        optimizer: Optimiser whose state for the zapped rows (moments, momentum) is set to 0; None keeps all state.

    Raises:
        UsageError: The head is not linear, there is no class, a class is out of range, or the scale is unknown.
    """
    if not isinstance(head, nn.Linear):
        raise UsageError(f"zap: the head is a {type(head).__name__}, not linear; give the last nn.Linear of the model")
    rows = _row_indices(head, classes)
    std = zap_std(head.in_features, len(rows), scale)
    device = "cpu" if generator is None else generator.device
    values = torch.empty(len(rows), head.in_features, device=device).normal_(0.0, std, generator=generator)
    rows = rows.to(head.weight.device)
    head.weight[rows] = values.to(head.weight)
    if reset_bias and head.bias is not None:
        head.bias[rows] = 0.0
    if optimizer is not None:
        _reset_optimizer_state(head, rows, optimizer)


def zap_std(features: int, classes: int, scale: str = "per_row") -> float:
    """Returns the standard deviation of new values for `classes` rows of `features` weights.

    Raises:
        UsageError: The scale is unknown.
    """
    if scale not in ZAP_SCALES:
        raise UsageError(f"zap: scale {scale!r} is not one of {', '.join(ZAP_SCALES)}")
    return math.sqrt(2.0 / features if scale == "per_row" else 2.0 / (classes * features))


def draw_zapped_classes(count: int, fraction: float, generator: torch.Generator | None = None) -> list[int] | None:
    """Draws a random fraction of the classes.

    Args:
        count: Number of classes.
        fraction: Fraction to draw, above 0 ... 1.
        generator: Random generator; PyTorch's global one when None.

    Returns:
        The drawn classes, at least one, in ascending order; None (the whole head) for a fraction of 1.

    Raises:
        UsageError: The fraction is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise UsageError(
            f"zap: a fraction of {fraction:g} is {'no class' if fraction <= 0 else 'more than the head'}; "
            "give a fraction above 0, up to 1"
        )
    if fraction == 1.0:
        return None
    drawn = torch.randperm(count, generator=generator)[: max(1, round(fraction * count))]
    return sorted(drawn.tolist())


def _row_indices(head: nn.Linear, classes: Iterable[int] | torch.Tensor | None) -> torch.Tensor:
    if classes is None:
        return torch.arange(head.out_features)
    indices = sorted({int(index) for index in classes})
    if not indices:
        raise UsageError("zap: 0 classes given; give at least one, or None for the whole head")
    wrong = [index for index in indices if not 0 <= index < head.out_features]
    if wrong:
        raise UsageError(f"zap: class {wrong[0]} is not in the head's 0 ... {head.out_features - 1}")
    return torch.tensor(indices)


def _reset_optimizer_state(head: nn.Linear, rows: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Sets the optimiser's per-weight state of some rows to 0; its step count is kept."""
    for parameter in (head.weight, head.bias):
        for value in optimizer.state.get(parameter, {}).values():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                value[rows] = 0.0
