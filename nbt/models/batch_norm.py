"""Running statistics of BatchNorm layers: re-estimated where weights come without usable ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from nbt.errors import UsageError


@torch.no_grad()
def estimate_statistics(
    model: nn.Module, batches: Iterable[torch.Tensor], layers: Collection[str] | None = None
) -> None:
    """Re-estimates BatchNorm's running statistics in place, as the mean over the statistics of batches.

    All other layers run in evaluation mode; modes and momenta are restored afterwards.

    Args:
        model: The model.
        batches: Normalised target images, (N, 3, H, W) each with N > 1.
        layers: Names of the layers in the model, e.g. `InjectionReport.statistics`; all when None.

    Raises:
        UsageError: There is no batch.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    selected = [m for name, m in norms.items() if m.track_running_stats and (layers is None or name in layers)]
    if not selected:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in selected]
    original = [[tensor.clone() for tensor in norm.buffers()] for norm in selected]
    n_batches = 0
    try:
        model.eval()
        for norm in selected:
            norm.reset_running_stats()
            norm.train().momentum = None  # the plain mean over batches
        for images in batches:
            model(images)
            n_batches += 1
    finally:
        for norm, momentum in zip(selected, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
        if not n_batches:
            for norm, tensors in zip(selected, original, strict=True):
                for buffer, tensor in zip(norm.buffers(), tensors, strict=True):
                    buffer.copy_(tensor)
    if not n_batches:
        raise UsageError("running statistics cannot be estimated without a batch of images")


def initial_statistics(state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Returns the names of the layers whose running statistics in a state dict are the initial ones, 0 and 1."""
    names = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
    return tuple(
        name
        for name in names
        if not state[f"{name}.running_mean"].any() and bool((state[f"{name}.running_var"] == 1).all())
    )
