"""Zapping: rows of the last layer are reset to a fresh random draw, again and again while features are trained.

Features that have to serve one newly drawn head after another adapt faster and transfer better. Frati, Traft, Clune
and Cheney, "Reset It and Forget It: Relearning Last-Layer Weights Improves Continual and Transfer Learning",
arXiv 2310.07996. As in the authors' code, biases and the optimiser's state survive a zap unless asked otherwise.
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
    """Overwrites the weight rows of some classes, in place, with a fresh Kaiming-normal draw.

    The draw is made on the generator's device (the CPU's without one) and then moved, so that the same seed gives the
    same rows on any device.

    Args:
        head: The last layer, linear: weight (K, D), D features.
        classes: Classes to zap, each 0 ... K-1, repeats count once; None is the whole head.
        scale: Deviation of the draw: "per_row" is sqrt(2 / D) whatever is zapped; "as_released" is the authors' code,
            sqrt(2 / D) for one class and sqrt(2 / (K D)) for K classes at once.
        generator: Source of the draw; given, the global generator is untouched.
        reset_bias: Whether the biases of those classes become 0, too.
        optimizer: Optimiser whose state on the zapped rows (moments, momentum) becomes 0; None leaves all state.

    Raises:
        UsageError: The head is not linear, there is no class, or one out of range, or the scale is unknown.
    """
    if not isinstance(head, nn.Linear):
        raise UsageError(f"zap: the head is a {type(head).__name__}, not linear; give the last nn.Linear of the model")
    rows = _row_indices(head, classes)
    deviation = zap_std(head.in_features, len(rows), scale)
    where = "cpu" if generator is None else generator.device
    draw = torch.empty(len(rows), head.in_features, device=where).normal_(0.0, deviation, generator=generator)
    rows = rows.to(head.weight.device)
    head.weight[rows] = draw.to(head.weight)
    if reset_bias and head.bias is not None:
        head.bias[rows] = 0.0
    if optimizer is not None:
        _reset_optimizer_state(head, rows, optimizer)


def zap_std(features: int, classes: int, scale: str = "per_row") -> float:
    """Returns the standard deviation that `classes` rows of `features` weights are drawn from.

    Raises:
        UsageError: The scale is unknown.
    """
    if scale not in ZAP_SCALES:
        raise UsageError(f"zap: scale {scale!r} is not one of {', '.join(ZAP_SCALES)}")
    return math.sqrt(2.0 / features if scale == "per_row" else 2.0 / (classes * features))


def draw_zapped_classes(count: int, fraction: float, generator: torch.Generator | None = None) -> list[int] | None:
    """Returns a random share of `count` classes, at least one, ascending; None (the whole head) for a share of 1.

    Raises:
        UsageError: The share is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise UsageError(
            f"zap: a fraction of {fraction:g} is {'no class' if fraction <= 0 else 'more than the head'}; "
            "give a share above 0, up to 1"
        )
    if fraction == 1.0:
        return None
    chosen = torch.randperm(count, generator=generator)[: max(1, round(fraction * count))]
    return sorted(chosen.tolist())


def _row_indices(head: nn.Linear, classes: Iterable[int] | torch.Tensor | None) -> torch.Tensor:
    if classes is None:
        return torch.arange(head.out_features)
    chosen = sorted({int(index) for index in classes})
    if not chosen:
        raise UsageError("zap: 0 classes given; give at least one, or None for the whole head")
    wrong = [index for index in chosen if not 0 <= index < head.out_features]
    if wrong:
        raise UsageError(f"zap: class {wrong[0]} is not in the head's 0 ... {head.out_features - 1}")
    return torch.tensor(chosen)


def _reset_optimizer_state(head: nn.Linear, rows: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Zeroes the optimiser's per-weight state of some rows; its count of steps is no state of a row and stays."""
    for parameter in (head.weight, head.bias):
        for value in optimizer.state.get(parameter, {}).values():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                value[rows] = 0.0
