"""WorkerContext: what outlives a trial in a worker. Model skeleton, w0, images and prefix caches."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from nbt.devices import autocast, inference_batch_size, pick_device
from nbt.models.backbone import Backbone
from nbt.models.weights import random_unit_state
from nbt.seeds import derive_seed, generator
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise, draw_augmentation_plan
from nbt.training.worker.available_memory import available_memory
from nbt.training.worker.device_images import device_resident_images
from nbt.training.worker.feature_cache import CHUNK_SIZE, FrozenFeatureCache, rebatch
from nbt.training.worker.starting_weights import StartingWeights, StartingWeightsCache, draw_kaiming_state
from nbt.transfer.fast import make_feature_norm, scale_head
from nbt.transfer.linearize import check_linearizable
from nbt.transfer.transfer_depth import freeze, set_transferred, units_of

# Images that running statistics are estimated from where injected weights come without.
_STATISTICS_IMAGES = 1024
_STATISTICS_BATCH_SIZE = 64


class WorkerContext:
    """One worker's tools for all trials of one task.

    Args:
        task: Its images, labels and w0 are used; trials may bring other splits of it.
        device: "cpu", "cuda", "cuda:1"; the first GPU if there is one when None.
        cache_bytes: Memory bound of the prefix cache; when None a quarter of the memory that is free now.
        cache_frozen_features: False runs the frozen units in every step, for comparison.
        workers_per_device: Workers that use the device together, 1 or more; of what is free there each takes its share.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: str | None = None,
        cache_bytes: int | None = None,
        cache_frozen_features: bool = True,
        workers_per_device: int = 1,
    ) -> None:
        self.task = task
        self.device = pick_device(device)
        self.model: Backbone = self._to_device(task.build_model())
        self._starting_weights_cache = StartingWeightsCache(
            task, self._to_device, lambda: self.model, self._sample_images
        )
        self._starting_weights = self._starting_weights_cache.get(TransferSettings())
        self._linearizable = False
        self.labels = torch.from_numpy(np.asarray(task.labels)).to(self.device)
        self.mean = torch.tensor(task.mean, device=self.device)
        self.std = torch.tensor(task.std, device=self.device)
        self._images = device_resident_images(task.images.array, self.device, workers_per_device)
        labelled = [part for part in (task.pools.train, task.pools.val) if part is not None]
        # Watched images come last and have no augmented views, so the views of the others are drawn as without them.
        self._n_augmented = sum(map(len, labelled))
        pool = np.concatenate(labelled if task.watched is None else [*labelled, task.watched])
        self._pool_row = torch.full((len(task.labels),), -1, dtype=torch.int64)
        self._pool_row[torch.from_numpy(pool)] = torch.arange(len(pool))
        self._pool = torch.from_numpy(pool)
        self.cache_frozen_features = cache_frozen_features
        if cache_bytes is None:
            cache_bytes = default_cache_bytes(self.device) // workers_per_device
        self._cache = FrozenFeatureCache(
            len(pool), cache_bytes, chunk=inference_batch_size(CHUNK_SIZE, task.image_size)
        )
        self._pool_plan = lru_cache(maxsize=32)(self._draw_pool_plan)

    @property
    def starting_weights(self) -> StartingWeights:
        """What the units of the trial that was prepared last started from, with its hash."""
        return self._starting_weights

    @property
    def w0(self) -> Mapping[str, torch.Tensor]:
        """What the units of the trial that was prepared last started from, as far as they were transferred."""
        return self._starting_weights.w0

    def _to_device(self, module_or_tensor: Any) -> Any:
        """Moves a module or tensor, 4-D weights in channels_last order."""
        if isinstance(module_or_tensor, torch.Tensor) and module_or_tensor.ndim != 4:
            return module_or_tensor.to(self.device).clone()
        return module_or_tensor.to(self.device, memory_format=torch.channels_last)

    def _sample_images(self) -> Iterator[torch.Tensor]:
        """Yields some training images; their labels play no part, nor which of them a trial validates on."""
        index = torch.from_numpy(self.task.split.train)
        chosen = index[torch.randperm(len(index), generator=generator(0, "sample"))[:_STATISTICS_IMAGES]]
        together = max(
            2, inference_batch_size(_STATISTICS_BATCH_SIZE, self.task.image_size)
        )  # of one there may be no statistics
        for chunk in chosen.tensor_split(max(1, len(chosen) // together)):
            yield self.load_images(chunk, AugmentationPlan())

    def prepare_model(self, settings: TransferSettings, seed: int) -> tuple[Backbone, int]:
        """Sets the skeleton to the start of a trial: w0, fresh units above the transfer depth, a fresh head.

        A normalisation of features by target statistics is not fitted yet.

        Args:
            settings: Repaired settings.
            seed: Draws the fresh weights.

        Returns:
            The model, which the next trial takes over, and its number of frozen units.

        Raises:
            UsageError: The settings start from weights that there are not, see `StartingWeightsCache.get`.
        """
        model = self.model
        self._starting_weights = self._starting_weights_cache.get(settings)
        total = len(model.units)
        transferred = units_of(settings.transfer_depth, total)
        frozen = min(units_of(settings.frozen_depth, total), transferred)
        fresh: dict[str, torch.Tensor] = {}
        if transferred < total:
            draw = draw_kaiming_state if settings.init == "kaiming" else random_unit_state
            fresh = draw(self.task.backbone, self.task.image_size, derive_seed(seed, "units"))
        set_transferred(model.units, transferred, self.w0, fresh)
        with torch.random.fork_rng(devices=self._rng_devices):
            torch.manual_seed(derive_seed(seed, "head"))
            model.head.reset_parameters()
        scale_head(model.head, settings.head_scale)
        model.feature_norm = make_feature_norm(settings.feature_norm, model.feature_dim).to(self.device)
        freeze(model, model.units, frozen)
        model.zero_grad(set_to_none=True)
        return model, frozen

    def check_linearizable(self) -> None:
        """Checks that the network can be linearised; once for all trials.

        Raises:
            UsageError: It cannot, see `nbt.transfer.linearize.check_linearizable`.
        """
        if not self._linearizable:
            size = self.task.image_size
            check_linearizable(
                self.model, torch.zeros(2, 3, size, size, device=self.device), name=self.task.backbone.text
            )
            self._linearizable = True

    @property
    def _rng_devices(self) -> list[torch.device]:
        return [self.device] if self.device.type == "cuda" else []

    def seed_global_rng(self, seed: int, *names: int | str) -> None:
        """Seeds torch's own generators, which dropout and stochastic depth draw from."""
        torch.manual_seed(derive_seed(seed, *names))

    def fork_global_rng(self) -> Any:
        """Returns a context after which torch's own generators are as they were."""
        return torch.random.fork_rng(devices=self._rng_devices)

    def load_images(self, index: torch.Tensor, plan: AugmentationPlan) -> torch.Tensor:
        """Returns images ready for the first unit, (n, 3, H, W).

        Args:
            index: int64 (n,), on the CPU.
            plan: What to do to each of them, on the device.
        """
        if self._images is not None:
            pixels = self._images[index.to(self._images.device)]
        else:
            pixels = torch.from_numpy(self.task.images.array[index.numpy()])
            if self.device.type == "cuda":
                pixels = pixels.pin_memory()
        return augment_and_normalise(pixels.to(self.device, non_blocking=True), plan, self.mean, self.std)

    @torch.no_grad()
    def forward_frozen(self, model: Backbone, frozen: int, images: torch.Tensor) -> torch.Tensor:
        """Runs the frozen units, and the neck where all are frozen, in evaluation mode as `set_training` left them."""
        with autocast(self.device):
            hidden = model.forward_units(images, 0, frozen)
            return model.neck(hidden) if frozen == len(model.units) else hidden

    def frozen_feature_batches(
        self, model: Backbone, frozen: int, policy: str, view: int, batches: Sequence[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Yields the output of the frozen units for one view of labelled images, batch by batch, on the device.

        Views depend on the policy and their number alone, not on the trial, so trials share them. What the cache cannot
        hold is computed again in each epoch; the values are the same, whatever memory is free.

        Args:
            model: Its first `frozen` units hold `w0`.
            frozen: 1 or more.
            policy: Augmentation; "none" has one view.
            view: 0 ... `settings.views` - 1.
            batches: int64 (n,) each, on the CPU; images of the train and validation pools, or watched ones.
        """
        if not batches:
            return
        plan = self._pool_plan(policy, view)

        def compute(rows: torch.Tensor) -> torch.Tensor:
            images = self.load_images(self._pool[rows], plan.rows(rows).to(self.device))
            return self.forward_frozen(model, frozen, images)

        key: Hashable = (self._starting_weights.key, frozen, policy, view)
        rows = self._pool_row[torch.cat(list(batches))]
        values = self._cache.fill(key, torch.sort(rows).values, compute)
        if values is None:
            features = rebatch(self._cache.compute(rows, compute), [len(batch) for batch in batches])
        else:
            cached = values
            features = (cached[part.to(cached.device)] for part in rows.split([len(batch) for batch in batches]))
        for batch in features:
            moved = batch.to(self.device, non_blocking=True)
            # Indexing forgets the memory order that the convolutions behind it are fast in.
            yield moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def _draw_pool_plan(self, policy: str, view: int) -> AugmentationPlan:
        rng = generator(0, "view", policy, view)
        return draw_augmentation_plan(policy, self._n_augmented, rng, mirror=self.task.mirror)

    @property
    def cache_memory(self) -> int:
        """Bytes of the prefix cache that are held in memory, of the device where it has its own."""
        return self._cache.memory_used

    def clear(self) -> None:
        """Forgets the prefix cache and gives the memory back; after a trial that ran out of it."""
        self._cache.close()
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            gc.collect()  # what refers to itself is still there, with its tensors
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Frees the caches and their files."""
        self.clear()


def default_cache_bytes(device: torch.device) -> int:
    """Returns a quarter of the memory that is free now, of the GPU or of the machine or container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return available_memory() // 4
