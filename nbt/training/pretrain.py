"""Sources pretrained here: backbones without library weights, trained in seconds and cached by their whole recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nbt.resources import cache_folder
from nbt.settings import TransferSettings
from nbt.task.backbone_names import BackboneSpec
from nbt.task.backbones import Backbone
from nbt.task.digits import list_digits
from nbt.task.download import Progress
from nbt.task.images import decode_images
from nbt.task.splits import make_pools, make_split
from nbt.task.task import SourceMeans, Task
from nbt.task.weights import PretrainedWeights, load_w0
from nbt.training.augment import AugmentPlan
from nbt.training.fine_tune import EVALUATION_BATCH, fine_tune
from nbt.training.workbench import Workbench

_VERSION = 2
_ENCODERS = ("conv3", "conv4")
_HEAD = ("head.weight", "head.bias")
_MEANS = ("source.means", "source.counts")


def _source_settings() -> TransferSettings:
    return TransferSettings(optimizer="adamw", head_lr=1e-3, body_lr=1e-3, batch_size=64, decay_strength=0.0, epochs=15)


@dataclass(frozen=True, kw_only=True)
class SourceRecipe:
    """All that the weights of a source follow from; its hash names the cache file.

    Attributes:
        backbone: Canonical text of the encoder.
        image_size: Pixels.
        settings: Of the training from a random initialisation.
        seed: Of initialisation and training.
        version: Raised when the same recipe would give other weights.
    """

    backbone: str
    image_size: int
    settings: TransferSettings = field(default_factory=_source_settings)
    seed: int = 0
    version: int = _VERSION

    def hash(self) -> str:
        """Returns the name of the source: the same recipe, the same name."""
        values = {**dataclasses.asdict(self), "settings": self.settings.to_dict()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]


def pretrained_source(
    spec: BackboneSpec, dataset: str, image_size: int, *, progress: Progress | None = None
) -> PretrainedWeights | None:
    """Returns the default weights of an encoder on `digits`: trained on digits 0-4, once, and kept in the cache.

    Args:
        spec: The backbone.
        dataset: The target.
        image_size: Pixels.
        progress: Called as progress(what, epochs done, epochs) while the source is trained.

    Returns:
        Weights with the source's classifier and its class means, or None where the backbone or the dataset has no
        source of ours.
    """
    if dataset != "digits" or spec.name not in _ENCODERS:
        return None
    recipe = SourceRecipe(backbone=spec.text, image_size=image_size)
    path = cache_folder("sources") / f"{recipe.hash()}.safetensors"
    blank = load_w0(spec, "none", image_size=image_size, seed=recipe.seed)
    state = _read(path, blank.w0) or _train(recipe, spec, blank, path, progress)
    return dataclasses.replace(
        blank,
        w0={name: state[name] for name in blank.w0},
        source_head={name: state[name] for name in _HEAD},
        source_means=_class_means(state),
    )


def _class_means(state: dict[str, torch.Tensor]) -> SourceMeans:
    means, counts = (state[name].numpy() for name in _MEANS)
    return SourceMeans(means, counts, list_digits(source=True).class_names)


def _read(path: Path, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Returns a cached source; None where there is none, or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    fits = all(name in state and state[name].shape == tensor.shape for name, tensor in like.items())
    return state if fits and all(name in state for name in (*_HEAD, *_MEANS)) else None


def _train(
    recipe: SourceRecipe, spec: BackboneSpec, blank: PretrainedWeights, path: Path, progress: Progress | None
) -> dict[str, torch.Tensor]:
    """Trains the source and writes it under its name, whole or not at all."""
    from safetensors.torch import save_file

    task = _source_task(recipe, spec, blank)
    bench = Workbench(task)
    trial = fine_tune(task, recipe.settings, recipe.seed, bench=bench)
    while True:
        try:
            result = next(trial)
        except StopIteration as end:
            model: Any = end.value.model
            break
        if progress is not None:
            progress("pretraining on digits 0-4", result.epoch, recipe.settings.epochs)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    state.update(zip(_MEANS, _measure_means(bench, model), strict=True))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return state


@torch.no_grad()
def _measure_means(bench: Workbench, model: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the class means of the training images' features, float32 (C_s, D), and their number, int64 (C_s,)."""
    task = bench.task
    index = torch.from_numpy(task.split.train)
    batches = [bench.load_images(chunk, AugmentPlan()) for chunk in index.split(EVALUATION_BATCH)]
    features = torch.cat([model.features(images).float().cpu() for images in batches])
    labels = torch.from_numpy(task.labels)[index]
    members = F.one_hot(labels, task.n_classes).to(features.dtype)
    counts = torch.bincount(labels, minlength=task.n_classes)
    return members.T @ features / counts[:, None], counts


def _source_task(recipe: SourceRecipe, spec: BackboneSpec, blank: PretrainedWeights) -> Task:
    listing = list_digits(source=True)
    images, _ = decode_images(listing.items, recipe.image_size)
    pools = make_pools(listing.labels, listing.roles, listing.class_names)
    return Task(
        dataset=listing.name,
        class_names=listing.class_names,
        fingerprint=recipe.hash(),
        images=images,
        labels=np.asarray(listing.labels),
        pools=pools,
        split=make_split(pools, listing.labels, recipe.seed),
        backbone=spec,
        weights="none",
        w0=blank.w0,
        mean=blank.mean,
        std=blank.std,
        mirror=False,
        seed=recipe.seed,
    )
