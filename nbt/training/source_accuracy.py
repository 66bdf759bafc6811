"""Source accuracy: how well the body of a model still works with the unchanged classifier of its source.

It measures forgetting, as in the evaluation of FAST (Varno et al., arXiv 2007.01388). The classifier gets the raw
features of the body, without the feature normalisation that a recipe may put before the new head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nbt.devices import autocast, inference_batch_size, pick_device
from nbt.models.backbone import Backbone
from nbt.models.weights import PretrainedWeights, build_source_head
from nbt.task.task import Task
from nbt.training.evaluation import EVALUATION_BATCH_SIZE
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise
from nbt.transfer.linearize import FirstOrder, first_order


@torch.no_grad()
def source_accuracy(model: Backbone | FirstOrder, task: Task) -> float | None:
    """Returns the share of the source images that body and source classifier classify correctly, 0 ... 1.

    The images are evaluated in batches without augmentation, normalised as those of the task.

    Args:
        model: A model of the task's backbone in evaluation mode, or its first-order expansion.
        task: The task, with images of the source and the classifier.

    Returns:
        The accuracy; None if the task has no images of its source.
    """
    source, device = task.source_data, next(model.parameters()).device
    if source is None:
        return None
    classify = _source_classifier(model, task, device)
    mean, std = torch.tensor(task.mean, device=device), torch.tensor(task.std, device=device)
    labels, correct = torch.from_numpy(source.labels).to(device), torch.zeros((), device=device)
    batch_size = inference_batch_size(EVALUATION_BATCH_SIZE, task.image_size)
    for index in torch.arange(len(source.labels)).split(batch_size):
        pixels = torch.from_numpy(source.images.array[index.numpy()]).to(device)
        with autocast(device):
            logits = classify(augment_and_normalise(pixels, AugmentationPlan(), mean, std))
        correct += (logits.float().argmax(dim=1) == labels[index.to(device)]).sum()
    return float(correct) / len(labels)


def reference_accuracy(task: Task, device: str | None = None) -> float | None:
    """Returns the source accuracy of the pretrained weights of a task, before any training.

    Args:
        task: The task.
        device: Device of the computation; the first GPU, else the CPU, when None.

    Returns:
        The accuracy, 0 ... 1; None if the task has no images of its source.
    """
    return None if task.source_data is None else source_accuracy(task.build_model(device=pick_device(device)), task)


class _SourceClassifier(nn.Module):
    """The units of a backbone with the classifier of its source: images, (N, 3, H, W), to logits, (N, C_s)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone.forward_units(images))  # type: ignore[no-any-return, operator]


def _source_classifier(
    model: Backbone | FirstOrder, task: Task, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the function from images to logits of the source; that of an expansion is linear in its weights."""
    weights = PretrainedWeights(
        w0=dict(task.w0), mean=task.mean, std=task.std, source_head=dict(task.source_head or {})
    )
    head = build_source_head(task.backbone, weights).to(device)
    if not isinstance(model, FirstOrder):
        return _SourceClassifier(model, head)
    origin = dict(model.base.named_parameters())
    moved = {f"backbone.{name}": tensor - origin[name] for name, tensor in model.model.named_parameters()}
    units = {name: change for name, change in moved.items() if name.startswith("backbone.units.")}
    return partial(first_order, _SourceClassifier(model.base, head), units)
