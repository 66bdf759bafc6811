"""Mixup (Zhang et al., arXiv 1710.09412) of each batch with itself in reverse order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from nbt.seeds import derive_seed

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def draw_mixup_shares(alpha: float, batches: int, seed: int, epoch: int) -> list[float]:
    """Returns, for each batch of an epoch, the share of its own images in the mixture; 1 means no mixing.

    Args:
        alpha: Parameter of the Beta distribution, 0 or more; 0 disables mixup.
        batches: Number of batches.
        seed: Seed of the training.
        epoch: Number of the epoch.
    """
    if alpha == 0.0:
        return [1.0] * batches
    rng = np.random.default_rng(derive_seed(seed, "mixup", epoch))
    return [float(value) for value in rng.beta(alpha, alpha, size=batches)]


def mix_inputs(inputs: torch.Tensor, share: float) -> torch.Tensor:
    """Returns `share` of the inputs plus the rest of the inputs in reverse order."""
    return torch.lerp(inputs.flip(0), inputs, share) if share < 1.0 else inputs


def mixed_loss(loss: Loss, logits: torch.Tensor, truth: torch.Tensor, share: float) -> torch.Tensor:
    """Returns the loss of mixed inputs: the mixture of the losses for the labels of both images."""
    own = loss(logits, truth)
    return torch.lerp(loss(logits, truth.flip(0)), own, share) if share < 1.0 else own
