"""Inputs of the first trainable unit without augmentation, for evaluation, ridge regressions and curvatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from nbt.data.splits import Index
from nbt.devices import autocast, inference_batch_size
from nbt.training.continual.scenarios import Mask
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext

Batch = tuple[torch.Tensor, torch.Tensor]

_BATCH_SIZE = 128


class EvaluationInputs:
    """Outputs of the frozen units for images without augmentation.

    Args:
        context: Worker context, whose model provides the frozen units.
        frozen: Number of frozen units, 0 or more.
    """

    def __init__(self, context: WorkerContext, frozen: int) -> None:
        self.context, self.frozen = context, frozen
        pools = context.task.pools
        self._pooled = np.zeros(len(context.task.labels), dtype=np.bool_)
        self._pooled[pools.train] = True
        if pools.val is not None:
            self._pooled[pools.val] = True

    def batches(self, index: Index, *, size: int | None = None) -> Iterator[Batch]:
        """Yields inputs of unit `frozen` (features if all units are frozen) and labels, on the device.

        Args:
            index: Images, int64 (n,). The feature cache is used if all of them are in the training and validation
                pools.
            size: Images per batch; None uses the batch size of inference.
        """
        images = torch.from_numpy(np.asarray(index))
        size = size or inference_batch_size(_BATCH_SIZE, self.context.task.image_size)
        chunks = images.split(size) if len(images) else ()
        inputs = self._cached_batches(chunks) if self._is_cacheable(images) else map(self._run, chunks)
        for chunk, batch in zip(chunks, inputs, strict=True):
            yield batch, self.context.labels[chunk.to(self.context.device)]

    @torch.no_grad()
    def feature_batches(self, index: Index) -> Iterator[Batch]:
        """Yields features, float32 (n, D), and labels of the images `index`, with the current weights of the model."""
        model = self.context.model.eval()
        for hidden, truth in self.batches(index):
            with autocast(self.context.device):
                all_frozen = self.frozen == model.n_units
                features = hidden if all_frozen else model.neck(model.forward_units(hidden, self.frozen))
            yield features.float(), truth

    @torch.no_grad()
    def accuracy(self, classify: Callable[[torch.Tensor, int], torch.Tensor], index: Index, outputs: Mask) -> float:
        """Returns the accuracy on the images `index`, 0 ... 1; an image with logits that are not finite is incorrect.

        Args:
            classify: Maps inputs and the number of their unit to logits, (n, C), in evaluation mode.
            index: Images, int64 (n,), n >= 1.
            outputs: Outputs that can be predicted, bool (C,).
        """
        excluded = torch.from_numpy(~outputs).to(self.context.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.context.device)
        for inputs, truth in self.batches(index):
            with autocast(self.context.device):
                logits = classify(inputs, self.frozen).float()
            finite = logits.isfinite().all(dim=1)
            predicted = logits.masked_fill(excluded, -torch.inf).argmax(dim=1)
            correct += ((predicted == truth) & finite).sum()
        return int(correct) / len(index)

    def _run(self, chunk: torch.Tensor) -> torch.Tensor:
        images = self.context.load_images(chunk, AugmentationPlan())
        if not self.frozen:
            return images
        self.context.model.eval()
        return self.context.forward_frozen(self.context.model, self.frozen, images)

    def _is_cacheable(self, images: torch.Tensor) -> bool:
        return bool(self.frozen and self.context.cache_frozen_features and self._pooled[images.numpy()].all())

    def _cached_batches(self, chunks: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        context = self.context
        context.model.eval()
        return context.frozen_feature_batches(context.model, self.frozen, "none", 0, chunks)
