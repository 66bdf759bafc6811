"""load_task: from names and options to a `Task`, with what can be wrong found before anything takes long."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.data.resolve import DatasetSource, resolve
from nbt.errors import UsageError
from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec, parse_backbone
from nbt.models.teacher import load_teacher, parse_teacher
from nbt.paths import absolute_path

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
"""Called as pretrained(backbone, dataset, image size); None leaves the weights to `load_pretrained_weights`."""

IMAGE_SIZES = (8, 1024)
"""Smallest and largest image size in pixels that is accepted."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What a task is to be, checked as far as it can be without opening an image or importing torch.

    Attributes:
        source: The dataset.
        backbone: The architecture.
        weights: "default", "none", or the absolute path of a file.
        data_dir: Absolute path that was given for the dataset, or None.
        image_size: Pixels, or None for the default of dataset and backbone.
        classes: Number of classes, or None for all.
        shots: Labelled images a class, or None for all.
        seed: Of split and shots.
    """

    source: DatasetSource
    backbone: BackboneSpec
    weights: str
    data_dir: str | None
    image_size: int | None
    classes: int | None
    shots: int | None
    seed: int


def check_task_options(
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
) -> TaskOptions:
    """Checks the arguments of `load_task` without importing torch or NumPy.

    Raises:
        UsageError: One is wrong; the message names it and the remedy.
    """
    source = resolve(dataset, data_dir)
    known = source.spec.classes
    _check_number("--image-size", image_size, *IMAGE_SIZES)
    _check_number("--classes", classes, 2, known, f"{source.spec.name} has {known} classes" if known else "")
    _check_number("--shots", shots, 2, None, "a class needs one image to train and one to validate on")
    _check_number("--seed", seed, 0, 2**63 - 1)
    if teacher is not None:
        parse_teacher(teacher)
    spec = backbone or source.spec.default_backbone
    return TaskOptions(
        source=source,
        backbone=parse_backbone(spec) if isinstance(spec, str) else spec,
        weights=_check_weights(weights),
        data_dir=None if data_dir is None else str(absolute_path(data_dir)),
        image_size=image_size,
        classes=classes,
        shots=shots,
        seed=seed,
    )


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
    """Loads a dataset and the pretrained weights that are to be transferred to it.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, or a CSV manifest.
        backbone: A torchvision classifier with keyword arguments, "timm:NAME", "conv3" or "conv4"; the dataset's
            default when None.
        weights: "default", "none" or a file.
        data_dir: Where a dataset known by name is.
        image_size: Height and width in pixels; the default of dataset and backbone when None.
        classes: The first so many classes only.
        shots: At most so many labelled images a class for training and validation together.
        teacher: Whose weights can be injected: "BACKBONE" (the library's weights) or "BACKBONE=FILE".
        seed: Of the train/validation split and of the shots.
        pretrained: Gives the default weights of backbones whose weights we train ourselves.
        progress: Called as progress(what, done, total) while files are fetched and decoded.

    Raises:
        UsageError: Something given is wrong, in the order of how long it takes to see: options, files of the
            dataset, splits, weights, unreadable images.
        NbtError: The dataset cannot be fetched, or the cache not be written.
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
        teacher=loaded_teacher,
    )


def dataset_summary(task: Task) -> dict[str, Any]:
    """Returns what is worth knowing of a task's data, in plain JSON types.

    Returns:
        classes; images in train, validation and test; images a class of train and validation together (minimum,
        median, maximum) and their imbalance (maximum by minimum); image size in pixels; the share held out; the
        standard error of a validation accuracy of .5 (None without validation images); images left out.
    """
    import numpy as np

    from nbt.data.splits import validation_standard_error

    labelled = np.concatenate([task.split.train, task.split.val])
    counts = np.bincount(task.labels[labelled], minlength=task.n_classes)
    n_val = len(task.split.val)
    return {
        "classes": task.n_classes,
        "train_images": len(task.split.train),
        "validation_images": n_val,
        "test_images": len(task.split.test),
        "class_images_min": int(counts.min()),
        "class_images_median": float(np.median(counts)),
        "class_images_max": int(counts.max()),
        "imbalance": round(float(counts.max() / counts.min()), 3),
        "image_size": task.image_size,
        "validation_share": round(n_val / len(labelled), 4),
        "validation_standard_error": round(validation_standard_error(0.5, n_val), 4) if n_val else None,
        "unreadable_images": len(task.images.unreadable),
    }


def _check_number(option: str, value: int | None, low: int, high: int | None, reason: str = "") -> None:
    if value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        bound = f"{low} or more" if high is None else f"{low} ... {high}"
        raise UsageError(f"{option} {value!r}: expected a whole number, {bound}{f'; {reason}' if reason else ''}")


def _check_weights(weights: str | Path) -> str:
    if str(weights) in ("default", "none"):
        return str(weights)
    path = absolute_path(weights)
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
        raise UsageError(f"--weights {weights}: no such file; expected default, none, or a .pth or .safetensors file")
    return str(path)


def _select_images(listing: Listing, options: TaskOptions) -> tuple[Listing, Pools]:
    """Returns the images that the task uses, with their pools: only they are decoded."""
    import numpy as np

    from nbt.data.splits import Pools, limit_shots, make_pools

    listing = listing.select_classes(options.classes)
    try:
        pools = make_pools(listing.labels, listing.roles, listing.class_names)
    except UsageError as error:
        raise UsageError(f"{options.source.spec.name}: {error}") from error
    if options.shots is None:
        return listing, pools
    pools = limit_shots(pools, listing.labels, options.shots, options.seed)
    used = np.sort(np.concatenate([part for part in (pools.train, pools.val, pools.test) if part is not None]))
    return listing.take(used), _renumber_pools(pools, used, Pools)


def _drop_unreadable(
    listing: Listing, pools: Pools, images: ImageStore, kept: npt.NDArray[np.int64]
) -> tuple[Listing, Pools]:
    """Takes the images that cannot be read out of listing and pools.

    Raises:
        UsageError: Too few images of a class are left.
    """
    if len(kept) == len(listing):
        return listing, pools
    from nbt.data.splits import Pools, check_pools

    rest = listing.take(kept)
    rest_pools = _renumber_pools(pools, kept, Pools)
    try:
        check_pools(rest_pools, rest.labels, rest.class_names)
    except UsageError as error:
        n, first = len(images.unreadable), images.unreadable[0]
        raise UsageError(f"{listing.name}: {error}: {n} images cannot be read, the first is {first}") from error
    return rest, rest_pools


def _renumber_pools(pools: Pools, kept: npt.NDArray[np.int64], build: type[Pools]) -> Pools:
    """Returns the pools as positions in `kept` (sorted), without what is not in it."""
    import numpy as np

    def positions(part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.flatnonzero(np.isin(kept, part))

    val = None if pools.val is None else positions(pools.val)
    return build(positions(pools.train), val if val is None or len(val) else None, positions(pools.test))


def _load_weights(options: TaskOptions, pretrained: PretrainedProvider | None) -> tuple[int, PretrainedWeights]:
    """Returns the image size and the weights; before decoding, because a wrong file is seen in seconds."""
    from nbt.models.backbone import default_image_size
    from nbt.models.weights import load_pretrained_weights

    spec, source = options.backbone, options.source.spec
    size = options.image_size
    if size is None and spec == parse_backbone(source.default_backbone):
        size = source.image_size
    size = size or default_image_size(spec)
    if pretrained is not None and options.weights == "default" and spec.name in ENCODER_NAMES:
        found = pretrained(spec, options.source.dataset, size)
        if found is not None:
            return size, found
    return size, load_pretrained_weights(spec, options.weights, image_size=size)


def _fingerprint(listing: Listing, size: int, options: TaskOptions) -> str:
    shots = None if options.shots is None else [options.shots, options.seed]
    choice = json.dumps({"classes": options.classes, "shots": shots, "image_size": size}, sort_keys=True)
    return hashlib.sha256(f"{listing.digest()}\n{choice}".encode()).hexdigest()
