"""The batches of a training: inputs of the first unit that trains, with labels, on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from nbt.devices import autocast, inference_batch_size
from nbt.models.backbone import Backbone
from nbt.seeds import generator
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.evaluation import EVALUATION_BATCH_SIZE
from nbt.training.recipe.augmentation import AugmentationPlan, draw_augmentation_plan
from nbt.training.recipe.checks import count_batches
from nbt.training.worker.context import WorkerContext
from nbt.transfer.fast import FeatureNorm

Batch = tuple[torch.Tensor, torch.Tensor]


class TaskBatches:
    """Batches of a task for one training: images, or features of the frozen units where those are cached.

    Args:
        task: The task.
        settings: The repaired settings.
        seed: Seed of the training.
        context: Context of the worker.
        model: The model at its starting weights.
        frozen: Number of frozen units.
    """

    def __init__(
        self, task: Task, settings: TransferSettings, seed: int, context: WorkerContext, model: Backbone, frozen: int
    ) -> None:
        self.task, self.settings, self.seed = task, settings, seed
        self.context, self.model, self.frozen = context, model, frozen
        self.per_epoch = count_batches(len(task.split.train), settings.batch_size)
        self._use_feature_cache = context.cache_frozen_features and frozen > 0

    def training(self, epoch: int) -> Iterator[Batch]:
        """Yields the batches of an epoch.

        Their sizes differ by at most one, because a small last batch would distort BatchNorm statistics.
        """
        policy = self.settings.augmentation
        order = torch.from_numpy(self.task.split.train)
        order = order[torch.randperm(len(order), generator=generator(self.seed, "order", epoch))]
        batches = order.tensor_split(self.per_epoch)
        if self._use_feature_cache:
            view = (epoch - 1) % self.settings.views if policy != "none" else 0
            yield from self._cached(policy, view, batches)
            return
        rng = generator(self.seed, "augment", epoch)
        plan = draw_augmentation_plan(policy, len(order), rng, mirror=self.task.mirror).to(self.context.device)
        rows = torch.arange(len(order), device=self.context.device).tensor_split(self.per_epoch)
        for row, chunk in zip(rows, batches, strict=True):
            yield self._load(chunk, plan.rows(row))

    def evaluation(self, index: npt.NDArray[np.int64]) -> Iterator[Batch]:
        """Yields batches of the images `index` without augmentation."""
        chunks = torch.from_numpy(index).split(inference_batch_size(EVALUATION_BATCH_SIZE, self.task.image_size))
        if self._use_feature_cache:
            yield from self._cached("none", 0, chunks)
            return
        for chunk in chunks:
            yield self._load(chunk, AugmentationPlan())

    def _cached(self, policy: str, view: int, chunks: tuple[torch.Tensor, ...]) -> Iterator[Batch]:
        features = self.context.frozen_feature_batches(self.model, self.frozen, policy, view, chunks)
        yield from zip(features, map(self._labels_of, chunks), strict=True)

    def _load(self, chunk: torch.Tensor, plan: AugmentationPlan) -> Batch:
        images = self.context.load_images(chunk, plan)
        inputs = self.context.forward_frozen(self.model, self.frozen, images) if self.frozen else images
        return inputs, self._labels_of(chunk)

    def _labels_of(self, index: torch.Tensor) -> torch.Tensor:
        return self.context.labels[index.to(self.context.device)]

    @torch.no_grad()
    def fit_feature_norm(self) -> None:
        """Fits a normalisation with target statistics to the training images, at the current weights."""
        norm = self.model.feature_norm
        if isinstance(norm, FeatureNorm) and norm.mode == "target":
            self.model.eval()
            norm.fit(self._features(np.sort(self.task.split.train)))

    def _features(self, index: npt.NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """Yields features; where all units are frozen, the inputs already are features."""
        for inputs, _ in self.evaluation(index):
            with autocast(self.context.device):
                yield (
                    inputs
                    if self.frozen == len(self.model.units)
                    else self.model.neck(self.model.forward_units(inputs, self.frozen))
                )
