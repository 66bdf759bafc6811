"""Evaluation: loss and accuracy of a classifier on images as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nbt.training.augment import AugmentPlan
from nbt.training.devices import autocast, images_at_once
from nbt.training.workbench import Workbench

EVALUATION_BATCH = 128
"""Images of 224 px and less at a time, see `images_at_once`."""


@torch.no_grad()
def evaluate(
    classify: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
) -> tuple[float, float]:
    """Returns mean cross-entropy in nats and accuracy, 0 ... 1.

    Args:
        classify: Maps inputs to logits, (n, C); its model is in evaluation mode.
        batches: Inputs and labels, (n,), on the device; at least one.
        device: Where they are.
    """
    loss = torch.zeros((), device=device)
    right = torch.zeros((), device=device)
    count = 0
    for inputs, truth in batches:
        with autocast(device):
            logits = classify(inputs).float()
        loss += F.cross_entropy(logits, truth, reduction="sum")
        right += (logits.argmax(dim=1) == truth).sum()
        count += len(truth)
    return float(loss) / count, float(right) / count


def evaluate_model(bench: Workbench, model: nn.Module, index: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Returns loss and accuracy of a whole model on some images; puts it in evaluation mode."""
    model.eval()
    together = images_at_once(EVALUATION_BATCH, bench.task.image_size)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for chunk in torch.from_numpy(index).split(together):
            yield bench.load_images(chunk, AugmentPlan()), bench.labels[chunk.to(bench.device)]

    return evaluate(model, batches(), bench.device)
