"""Loss and accuracy of a classifier on images without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nbt.devices import autocast, inference_batch_size
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext

EVALUATION_BATCH_SIZE = 128
"""Images per batch up to 224 px, see `inference_batch_size`."""


@torch.no_grad()
def evaluate(
    classify: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
) -> tuple[float, float]:
    """Returns the mean cross-entropy in nats and the accuracy, 0 ... 1.

    Args:
        classify: Maps inputs to logits, (n, C); its model is in evaluation mode.
        batches: Inputs and labels, int64 (n,), on the device; at least one batch.
        device: Device of the inputs and labels.
    """
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    count = 0
    for inputs, truth in batches:
        with autocast(device):
            logits = classify(inputs).float()
        loss += F.cross_entropy(logits, truth, reduction="sum")
        correct += (logits.argmax(dim=1) == truth).sum()
        count += len(truth)
    return float(loss) / count, float(correct) / count


def evaluate_model(context: WorkerContext, model: nn.Module, index: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Returns the loss and the accuracy of a model on the images `index`; sets the model to evaluation mode."""
    model.eval()
    batch_size = inference_batch_size(EVALUATION_BATCH_SIZE, context.task.image_size)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for chunk in torch.from_numpy(index).split(batch_size):
            yield context.load_images(chunk, AugmentationPlan()), context.labels[chunk.to(context.device)]

    return evaluate(model, batches(), context.device)
