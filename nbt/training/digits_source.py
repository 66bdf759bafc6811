"""The default source models of the embedded datasets: encoders trained once on other digits and cached on disk."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from nbt.data.image_store import decode_images
from nbt.data.listing import Listing
from nbt.data.readers.digits import read_digits
from nbt.data.readers.numbers import read_numbers
from nbt.data.splits import make_pools, make_split
from nbt.devices import inference_batch_size
from nbt.models.backbone import Backbone
from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec
from nbt.models.weights import PretrainedWeights, load_pretrained_weights
from nbt.progress import Progress
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.evaluation import EVALUATION_BATCH_SIZE
from nbt.training.fine_tune import fine_tune
from nbt.training.pretrain.scheme_sources import SourceRecipe, digits_scheme_source, to_pretrained_weights
from nbt.training.pretrain.source_cache import CLASS_MEAN_KEYS, State, read_source, write_source
from nbt.training.recipe.augmentation import AugmentationPlan
from nbt.training.worker.context import WorkerContext

SOURCES = {"digits": read_digits, "numbers": read_numbers}
"""Readers of the embedded datasets, which also return the images of the source."""


def pretrained_source(
    spec: BackboneSpec,
    dataset: str,
    image_size: int,
    *,
    scheme: str = "iid",
    zap_period: int = 0,
    progress: Progress | None = None,
) -> PretrainedWeights | None:
    """Returns the default weights of an encoder for an embedded dataset.

    They are trained once on the digits 0-4, or on two-digit numbers of them, and cached.

    "iid" without zaps uses `fine_tune` with a decaying learning rate, and the weights of the epoch with the best
    validation, so that they stay those of version 0.1, on which stored studies build. Every other scheme uses
    `pretrain`, as published: a constant learning rate, all images, and the last epoch; it is there for `digits` only.

    Args:
        spec: The backbone.
        dataset: Name of the target dataset.
        image_size: Height and width in pixels.
        scheme: One of `nbt.settings.PRETRAIN_SCHEMES`.
        zap_period: Epochs ("iid") or episodes between zaps; 0 disables them; see `PretrainSettings`.
        progress: Called as progress(description, done, total) while the source is trained.

    Returns:
        Weights with the source's classifier and class means; None if the dataset is not one of `SOURCES` or the
        backbone is not one of `ENCODER_NAMES`.

    Raises:
        UsageError: The scheme is unknown, or the zap period is too long for the training.
    """
    if dataset not in SOURCES or spec.name not in ENCODER_NAMES:
        return None
    if dataset == "digits" and (scheme != "iid" or zap_period):
        return digits_scheme_source(spec, image_size, scheme=scheme, zap_period=zap_period, progress=progress)
    listing = SOURCES[dataset](source=True)
    recipe = SourceRecipe(backbone=spec.text, image_size=image_size, images=listing.name)
    random_weights = load_pretrained_weights(spec, "none", image_size=image_size, seed=recipe.seed)
    state = read_source(recipe.path, random_weights.w0)
    if state is None:
        task = _make_source_task(listing, recipe, spec, random_weights)
        state = _train_source(task, recipe, progress)
    return to_pretrained_weights(state, random_weights, listing.class_names)


def _train_source(task: Task, recipe: SourceRecipe, progress: Progress | None) -> State:
    """Trains a source with `fine_tune`, writes it to the cache and returns its tensors."""
    context, name = WorkerContext(task), task.dataset.removesuffix(" source")
    description = f"pretraining on {name} {task.class_names[0]}-{task.class_names[-1]}"
    assert isinstance(recipe.settings, TransferSettings)
    model, state, best = context.model, State(), (-1.0, 0.0)
    for result in fine_tune(task, recipe.settings, recipe.seed, context=context):
        rank = result.val_accuracy or 0.0, -(result.val_loss or 0.0)
        if rank > best:
            best = rank
            state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        if progress is not None:
            progress(description, result.epoch, recipe.settings.epochs)
    model.load_state_dict(state)
    state.update(zip(CLASS_MEAN_KEYS, _compute_class_means(context, model), strict=True))
    write_source(recipe.path, state)
    return state


@torch.no_grad()
def _compute_class_means(context: WorkerContext, model: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the class means of the training images' features, float32 (C_s, D), and the class sizes, int64 (C_s,)."""
    task = context.task
    index = torch.from_numpy(task.split.train)
    batch_size = inference_batch_size(EVALUATION_BATCH_SIZE, task.image_size)
    batches = [context.load_images(chunk, AugmentationPlan()) for chunk in index.split(batch_size)]
    features = torch.cat([model.features(images).float().cpu() for images in batches])
    labels = torch.from_numpy(task.labels)[index]
    members = F.one_hot(labels, task.n_classes).to(features.dtype)
    counts = torch.bincount(labels, minlength=task.n_classes)
    return members.T @ features / counts[:, None], counts


def _make_source_task(
    listing: Listing, recipe: SourceRecipe, spec: BackboneSpec, random_weights: PretrainedWeights
) -> Task:
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
        w0=random_weights.w0,
        mean=random_weights.mean,
        std=random_weights.std,
        mirror=False,
        seed=recipe.seed,
    )
