"""Transfer depth and frozen depth: the numbers of units with pretrained weights and of units that are not trained.

Plested, Shen and Gedeon, "Non-binary deep transfer learning for image classification", arXiv 2107.08585.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from nbt.settings import TransferSettings


def units_of(share: float, n_units: int) -> int:
    """Returns the number of units of a depth given as a share (0 ... 1): share * n_units, rounded, halves upwards."""
    return min(n_units, math.floor(share * n_units + 0.5))


def unit_index_of_key(name: str) -> int:
    """Returns the index of the unit to which the state-dict key `name` ("units.3.conv.weight") belongs."""
    return int(name.split(".", 2)[1])


@torch.no_grad()
def set_transferred(
    units: nn.ModuleList, transferred: int, w0: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]
) -> None:
    """Copies pretrained weights into the first `transferred` units and fresh ones into the others, including buffers.

    Args:
        units: Units of the backbone.
        transferred: Number of transferred units, 0 ... len(units).
        w0: Pretrained state, keys "units.I....".
        fresh: Newly initialised state; only the units from `transferred` on are read, so the others may be missing.
    """
    targets, sources = [], []
    for name, tensor in units.state_dict(prefix="units.").items():
        targets.append(tensor)
        sources.append((w0 if unit_index_of_key(name) < transferred else fresh)[name])
    copy_tensors(targets, sources)


def frozen_units(settings: TransferSettings, n_units: int) -> tuple[int, range]:
    """Returns the number of frozen units from the input, and the indices of the frozen units below the top.

    Re-initialised units are never frozen.

    Args:
        settings: Repaired settings.
        n_units: Number of units of the backbone.
    """
    transferred = units_of(settings.transfer_depth, n_units)
    bottom = min(units_of(settings.frozen_depth, n_units), transferred)
    return bottom, range(max(bottom, n_units - units_of(settings.frozen_top, n_units)), transferred)


def freeze(model: nn.Module, units: nn.ModuleList, frozen: int, top: range = range(0)) -> None:
    """Makes all parameters require gradients, except those of the first `frozen` units and of the units `top`."""
    model.requires_grad_(True)
    for part in (units[:frozen], units[top.start : top.stop]):
        part.requires_grad_(False)


def set_training(model: nn.Module, units: nn.ModuleList, frozen: int, top: range = range(0)) -> None:
    """Puts the model in training mode with the first `frozen` units and the units `top` in evaluation mode.

    In the frozen units BatchNorm's running statistics are not updated, and dropout is not applied.
    """
    model.train()
    for part in (units[:frozen], units[top.start : top.stop]):
        part.eval()


def copy_tensors(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copies tensors in place, with one `foreach` call for floating-point tensors and one for the others."""
    for floating in (True, False):
        pairs = [(t, s) for t, s in zip(targets, sources, strict=True) if t.is_floating_point() == floating]
        if pairs:
            torch._foreach_copy_([t for t, _ in pairs], [s for _, s in pairs])
