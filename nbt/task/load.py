"""Loads a task, checking everything that is quick to check before the slow steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nbt.errors import UsageError
from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec, parse_backbone
from nbt.models.teacher import load_teacher
from nbt.task.options import TaskOptions, check_task_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nbt.data.image_store import ImageStore
    from nbt.data.listing import Listing
    from nbt.data.splits import Pools
    from nbt.models.weights import PretrainedWeights
    from nbt.progress import Progress
    from nbt.task.task import Task

PretrainedProvider = Callable[[BackboneSpec, str, int], "PretrainedWeights | None"]
"""Called as pretrained(backbone, dataset, image size); returns None where `load_pretrained_weights` is to be used."""


def load_task(
    dataset: str | Path,
    *,
    backbone: str | BackboneSpec | None = None,
    weights: str | Path = "default",
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    classes: int | None = None,
    shots: int | None = None,
    teacher: str | None = None,
    seed: int = 0,
    pretrained: PretrainedProvider | None = None,
    progress: Progress | None = None,
) -> Task:
    """Loads a dataset and the pretrained weights to transfer to it.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, or a CSV manifest.
        backbone: A torchvision classifier with keyword arguments, "timm:NAME", "conv3" or "conv4"; the dataset's
            default when None.
        weights: "default", "none" or the path of a file.
        data_dir: Location of a dataset known by name.
        image_size: Height and width in pixels; the default of dataset and backbone when None.
        classes: Number of classes, of which the first are used; all when None.
        shots: Maximum number of labelled images per class, for training and validation together.
        teacher: The teacher whose weights can be injected: "BACKBONE" (the library's weights) or "BACKBONE=FILE".
        seed: Seed of the train/validation split and of the shots.
        pretrained: Provides the default weights of backbones that nbt pretrains itself.
        progress: Called as progress(description, done, total) while files are downloaded and decoded.

    Raises:
        UsageError: An argument or the data are wrong. Quick checks come first: options, files of the dataset, splits,
            weights, unreadable images.
        NbtError: The dataset cannot be downloaded, or the cache cannot be written.
    """
    options = check_task_options(
        dataset,
        backbone=backbone,
        weights=weights,
        data_dir=data_dir,
        image_size=image_size,
        classes=classes,
        shots=shots,
        teacher=teacher,
        seed=seed,
    )
    from nbt.data import splits
    from nbt.data.image_store import decode_images
    from nbt.data.registry import read_dataset
    from nbt.task.task import Task

    listing, pools = _select_images(read_dataset(options.source, progress=progress), options)
    size, source_weights = _load_weights(options, pretrained)
    loaded_teacher = None if teacher is None else load_teacher(teacher)
    images, kept = decode_images(listing.items, size, progress=progress)
    listing, pools = _drop_unreadable(listing, pools, images, kept)
    return Task(
        dataset=options.source.dataset,
        class_names=listing.class_names,
        fingerprint=_fingerprint(listing, size, options),
        images=images,
        labels=listing.labels,
        pools=pools,
        split=splits.make_split(pools, listing.labels, seed),
        backbone=options.backbone,
        weights=options.weights,
        w0=source_weights.w0,
        mean=source_weights.mean,
        std=source_weights.std,
        mirror=options.source.spec.mirror,
        seed=seed,
        data_dir=options.data_dir,
        classes=classes,
        shots=shots,
        source_head=source_weights.source_head,
        source_means=source_weights.source_means,
        stale_statistics=source_weights.stale_statistics,
        teacher=loaded_teacher,
    )


def _select_images(listing: Listing, options: TaskOptions) -> tuple[Listing, Pools]:
    """Selects the images of the task, so that only these are decoded, and divides them into pools."""
    import numpy as np

    from nbt.data.splits import limit_shots, make_pools

    listing = listing.select_classes(options.classes)
    try:
        pools = make_pools(listing.labels, listing.roles, listing.class_names)
    except UsageError as error:
        raise UsageError(f"{options.source.spec.name}: {error}") from error
    if options.shots is None:
        return listing, pools
    pools = limit_shots(pools, listing.labels, options.shots, options.seed)
    used = np.sort(np.concatenate([part for part in (pools.train, pools.val, pools.test) if part is not None]))
    return listing.take(used), _renumber_pools(pools, used)


def _drop_unreadable(
    listing: Listing, pools: Pools, images: ImageStore, kept: npt.NDArray[np.int64]
) -> tuple[Listing, Pools]:
    """Removes the images that could not be decoded from listing and pools.

    Raises:
        UsageError: A class has too few images left.
    """
    if len(kept) == len(listing):
        return listing, pools
    from nbt.data.splits import check_pools

    readable = listing.take(kept)
    readable_pools = _renumber_pools(pools, kept)
    try:
        check_pools(readable_pools, readable.labels, readable.class_names)
    except UsageError as error:
        n, first = len(images.unreadable), images.unreadable[0]
        raise UsageError(f"{listing.name}: {error}: {n} images cannot be read, the first is {first}") from error
    return readable, readable_pools


def _renumber_pools(pools: Pools, kept: npt.NDArray[np.int64]) -> Pools:
    """Returns the pools as positions in `kept` (sorted), without other images."""
    import numpy as np

    from nbt.data.splits import Pools

    def positions(part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.flatnonzero(np.isin(kept, part))

    val = None if pools.val is None else positions(pools.val)
    return Pools(positions(pools.train), val if val is None or len(val) else None, positions(pools.test))


def _load_weights(options: TaskOptions, pretrained: PretrainedProvider | None) -> tuple[int, PretrainedWeights]:
    """Returns the image size and the weights; called before images are decoded, because its checks take seconds."""
    from nbt.models.backbone import default_image_size
    from nbt.models.weights import load_pretrained_weights

    spec, source = options.backbone, options.source.spec
    size = options.image_size
    if size is None and spec == parse_backbone(source.default_backbone):
        size = source.image_size
    size = size or default_image_size(spec)
    if pretrained is not None and options.weights == "default" and spec.name in ENCODER_NAMES:
        provided = pretrained(spec, options.source.dataset, size)
        if provided is not None:
            return size, provided
    return size, load_pretrained_weights(spec, options.weights, image_size=size)


def _fingerprint(listing: Listing, size: int, options: TaskOptions) -> str:
    """Returns a hash of the listing and of the options that select images or their size."""
    shots = None if options.shots is None else [options.shots, options.seed]
    selection = json.dumps({"classes": options.classes, "shots": shots, "image_size": size}, sort_keys=True)
    return hashlib.sha256(f"{listing.digest()}\n{selection}".encode()).hexdigest()
