"""Context of a worker, shared by its trials: the model, starting weights, images and the frozen-feature cache."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbt.cache import FEATURES, CacheUse
from nbt.devices import autocast, inference_batch_size, pick_device
from nbt.machine.memory import available_memory
from nbt.models.backbone import Backbone
from nbt.models.batch_norm import initial_statistics
from nbt.models.weights import random_unit_state
from nbt.paths import cache_folder
from nbt.seeds import derive_seed, generator
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise, draw_augmentation_plan
from nbt.training.worker.device_images import device_resident_images
from nbt.training.worker.feature_cache import CHUNK_SIZE, FrozenFeatureCache, rebatch
from nbt.training.worker.feature_identity import features_identity
from nbt.training.worker.shared_feature_cache import SharedFeatureCache
from nbt.training.worker.starting_weights import StartingWeights, StartingWeightsCache, draw_kaiming_state
from nbt.transfer.fast import make_feature_norm, scale_head
from nbt.transfer.linearize import check_linearizable
from nbt.transfer.transfer_depth import freeze, frozen_units, set_transferred, unit_index_of_key, units_of


class WorkerContext:
    """Resources of one worker for all trials of one task.

    Args:
        task: The task, whose images, labels and w0 are used; trials may use other splits of it.
        device: "cpu", "cuda" or "cuda:1"; None selects the first GPU if there is one, else the CPU.
        cache_bytes: Upper bound of the frozen-feature cache in memory, in bytes; None uses a quarter of the available
            memory, divided by `workers_per_device`.
        cache_frozen_features: Whether to cache features; False runs the frozen units in every step, for comparison.
        workers_per_device: Number of workers that share the device, 1 or more.
        shared_folder: Folder in which workers on this machine share features on the CPU, as far as its disk has room
            for them, each task in a folder of its own; None keeps the cache in this process, with its limit.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: str | None = None,
        cache_bytes: int | None = None,
        cache_frozen_features: bool = True,
        workers_per_device: int = 1,
        shared_folder: Path | None = None,
    ) -> None:
        self.task = task
        self.device = pick_device(device)
        self.model: Backbone = task.build_model(device=self.device)
        self._starting_weights_cache = StartingWeightsCache(task, self._to_device, self.model)
        self._starting_weights = self._starting_weights_cache.get(TransferSettings())
        self._linearizable = False
        self.labels = torch.from_numpy(np.asarray(task.labels)).to(self.device)
        self.mean = torch.tensor(task.mean, device=self.device)
        self.std = torch.tensor(task.std, device=self.device)
        self._images = device_resident_images(task.images.array, self.device, workers_per_device)
        labelled = [part for part in (task.pools.train, task.pools.val) if part is not None]
        # Monitored images come last and have no augmented views, so that they do not change the views of the others.
        self._n_augmented = sum(map(len, labelled))
        pool = np.concatenate(labelled if task.watched is None else [*labelled, task.watched])
        self._pool_row = torch.full((len(task.labels),), -1, dtype=torch.int64)
        self._pool_row[torch.from_numpy(pool)] = torch.arange(len(pool))
        self._pool = torch.from_numpy(pool)
        self.cache_frozen_features = cache_frozen_features
        chunk = inference_batch_size(CHUNK_SIZE, task.image_size)
        if shared_folder is not None and self.device.type == "cpu":
            name = features_identity(task, pool, self._n_augmented)
            self._features_use = CacheUse(FEATURES, name) if shared_folder == cache_folder(FEATURES) else None
            self._cache: FrozenFeatureCache = SharedFeatureCache(len(pool), shared_folder / name, chunk=chunk)
        else:
            if cache_bytes is None:
                cache_bytes = default_cache_bytes(self.device) // workers_per_device
            self._cache = FrozenFeatureCache(len(pool), cache_bytes, chunk=chunk)
        self._pool_plan = lru_cache(maxsize=32)(self._draw_pool_plan)

    @property
    def starting_weights(self) -> StartingWeights:
        """The starting weights of the trial that was prepared last."""
        return self._starting_weights

    @property
    def w0(self) -> Mapping[str, torch.Tensor]:
        """The starting weights of the transferred units in the trial that was prepared last."""
        return self._starting_weights.w0

    def _to_device(self, module_or_tensor: Any) -> Any:
        """Moves a module or tensor to the device, with 4-D weights in channels_last memory format."""
        if isinstance(module_or_tensor, torch.Tensor) and module_or_tensor.ndim != 4:
            return module_or_tensor.to(self.device).clone()
        return module_or_tensor.to(self.device, memory_format=torch.channels_last)

    def prepare_model(self, settings: TransferSettings, seed: int) -> tuple[Backbone, int]:
        """Sets the model to the start of a trial: w0, new units above the transfer depth and a new head.

        A feature normalisation with target statistics is not fitted yet.

        Args:
            settings: Repaired settings.
            seed: Seed of the new weights.

        Returns:
            The model, which the next trial overwrites, and its number of frozen units from the input.

        Raises:
            UsageError: The starting weights do not exist, see `StartingWeightsCache.get`.
        """
        model = self.model
        self._starting_weights = self._starting_weights_cache.get(settings)
        total = len(model.units)
        transferred = units_of(settings.transfer_depth, total)
        frozen, frozen_top = frozen_units(settings, total)
        fresh: dict[str, torch.Tensor] = {}
        if transferred < total:
            draw = draw_kaiming_state if settings.source.init == "kaiming" else random_unit_state
            fresh = draw(self.task.backbone, self.task.image_size, derive_seed(seed, "units"))
        set_transferred(model.units, transferred, self.w0, fresh)
        if settings.linearized:
            self._estimate_initial_statistics(frozen)
        with torch.random.fork_rng(devices=self._rng_devices):
            torch.manual_seed(derive_seed(seed, "head"))
            model.head.reset_parameters()
        scale_head(model.head, settings.head_scale)
        model.feature_norm = make_feature_norm(settings.feature_norm, model.feature_dim).to(self.device)
        freeze(model, model.units, frozen, frozen_top)
        model.zero_grad(set_to_none=True)
        return model, frozen

    def _estimate_initial_statistics(self, frozen: int) -> None:
        """Estimates the running statistics of new layers above the frozen units.

        A linearised network normalises with them from the first step on; their initial values, 0 and 1, would let the
        activations of new units vanish or grow from layer to layer.
        """
        state = self.model.unit_state_dict()
        new = {name: tensor for name, tensor in state.items() if unit_index_of_key(name) >= frozen}
        self.task.estimate_statistics(self.model, initial_statistics(new))

    def check_linearizable(self) -> None:
        """Checks that the network can be linearised; the check runs once for all trials.

        Raises:
            UsageError: It cannot be linearised, see `nbt.transfer.linearize.check_linearizable`.
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
        """Seeds PyTorch's global generators, from which dropout and stochastic depth draw."""
        torch.manual_seed(derive_seed(seed, *names))

    def fork_global_rng(self) -> Any:
        """Returns a context manager that restores the state of PyTorch's global generators on exit."""
        return torch.random.fork_rng(devices=self._rng_devices)

    def load_images(self, index: torch.Tensor, plan: AugmentationPlan) -> torch.Tensor:
        """Returns augmented and normalised images for the first unit, (n, 3, H, W).

        Args:
            index: Image indices, int64 (n,), on the CPU.
            plan: Augmentation plan of these images, on the device.
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
        """Runs the frozen units, which `set_training` set to evaluation mode, and the neck if all units are frozen."""
        with autocast(self.device):
            hidden = model.forward_units(images, 0, frozen)
            return model.neck(hidden) if frozen == len(model.units) else hidden

    def frozen_feature_batches(
        self, model: Backbone, frozen: int, policy: str, view: int, batches: Sequence[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """Yields the output of the frozen units for one view of some images, batch by batch, on the device.

        A view depends on the policy and its number only, so that all trials share it. A view that the cache cannot hold
        is computed again in each epoch, with the same values: results do not depend on the free memory.

        Args:
            model: Model whose first `frozen` units hold `w0`.
            frozen: Number of frozen units, 1 or more.
            policy: Augmentation policy; "none" has one view.
            view: Number of the view, 0 ... `settings.views` - 1.
            batches: Images of the training and validation pools or monitored images, int64 (n,) each, on the CPU.
        """
        if not batches:
            return
        plan = self._pool_plan(policy, view)

        def compute(rows: torch.Tensor) -> torch.Tensor:
            images = self.load_images(self._pool[rows], plan.rows(rows).to(self.device))
            return self.forward_frozen(model, frozen, images)

        key: Hashable = (self._starting_weights.hash, frozen, policy, view)
        rows = self._pool_row[torch.cat(list(batches))]
        values = self._cache.fill(key, torch.sort(rows).values, compute)
        if values is None:
            features = rebatch(self._cache.compute(rows, compute), [len(batch) for batch in batches])
        else:
            cached = values
            features = (cached[part.to(cached.device)] for part in rows.split([len(batch) for batch in batches]))
        for batch in features:
            moved = batch.to(self.device, non_blocking=True)
            # Indexing returns contiguous features; the convolutions that follow are faster in channels_last.
            yield moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def _draw_pool_plan(self, policy: str, view: int) -> AugmentationPlan:
        rng = generator(0, "view", policy, view)
        return draw_augmentation_plan(policy, self._n_augmented, rng, mirror=self.task.mirror)

    @property
    def cache_memory(self) -> int:
        """The bytes of the frozen-feature cache in the memory of the device."""
        return self._cache.memory_used

    def clear(self) -> None:
        """Empties the frozen-feature cache and frees its memory; for use after a trial that ran out of memory."""
        self._cache.close()
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            gc.collect()  # reference cycles may still hold tensors
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Frees the caches and their files."""
        self.clear()


def default_cache_bytes(device: torch.device) -> int:
    """Returns a quarter of the available memory of the GPU, or of the machine or container, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return available_memory() // 4
