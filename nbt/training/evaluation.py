"""Evaluation of a classifier on images without augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nbt.devices import autocast, inference_batch_size
from nbt.training.metrics import COMPUTE, OTHER_METRICS, Predictions
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext

EVALUATION_BATCH_SIZE = 128
"""Images per batch up to 224 px, see `inference_batch_size`."""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        loss: Mean cross-entropy in nats.
        accuracy: Share of correctly classified images, 0 ... 1.
        metrics: Name -> value of the other metrics in `nbt.metrics.METRICS`, None where one is not defined;
            empty if the loss is not finite.
        predictions: The predictions of the images; None if the loss is not finite.
    """

    loss: float
    accuracy: float
    metrics: Mapping[str, float | None]
    predictions: Predictions | None


@torch.no_grad()
def evaluate(
    classify: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    index: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """Evaluates a classifier; waits for the device once, at the end.

    Args:
        classify: Maps inputs to logits, (n, C); its model is in evaluation mode.
        batches: Inputs and labels, int64 (n,), on the device; at least one batch.
        device: Device of the inputs and labels.
        index: Indices of the images, int64 (n,), for the predictions; None if they are unknown.
    """
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    batch_logits, batch_labels = [], []
    for inputs, truth in batches:
        with autocast(device):
            logits = classify(inputs).float()
        loss += F.cross_entropy(logits, truth, reduction="sum")
        correct += (logits.argmax(dim=1) == truth).sum()
        batch_logits.append(logits)
        batch_labels.append(truth)
    logits, labels = torch.cat(batch_logits), torch.cat(batch_labels)
    mean_loss, accuracy = float(loss) / len(labels), float(correct) / len(labels)
    if not math.isfinite(mean_loss):
        return Evaluation(mean_loss, accuracy, {}, None)
    predictions = predictions_from_logits(logits, labels, index)
    metrics = {name: COMPUTE[name](predictions) for name in OTHER_METRICS}
    return Evaluation(mean_loss, accuracy, metrics, predictions)


def predictions_from_logits(
    logits: torch.Tensor, labels: torch.Tensor, index: npt.NDArray[np.int64] | None = None
) -> Predictions:
    """Returns predictions; waits for the device of the logits.

    Args:
        logits: Logits, (n, C).
        labels: True classes, int64 (n,).
        index: Indices of the images, int64 (n,); None if they are unknown.
    """
    images = np.empty(0, dtype=np.int32) if index is None else index.astype(np.int32)
    return Predictions(labels.cpu().numpy(), logits.cpu().double().log_softmax(dim=1).numpy(), images)


def evaluate_model(context: WorkerContext, model: nn.Module, index: npt.NDArray[np.int64]) -> Evaluation:
    """Evaluates a model on the images `index`; sets the model to evaluation mode."""
    model.eval()
    batch_size = inference_batch_size(EVALUATION_BATCH_SIZE, context.task.image_size)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for chunk in torch.from_numpy(index).split(batch_size):
            yield context.load_images(chunk, AugmentationPlan()), context.labels[chunk.to(context.device)]

    return evaluate(model, batches(), context.device, index)
