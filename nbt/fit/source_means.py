"""Class means of a source whose images are at hand, among the features of the weights that came from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.data.image_store import decode_images
from nbt.data.listing import listing_from_files
from nbt.data.readers.image_folder import read_image_folder
from nbt.devices import pick_device
from nbt.fit.activations import compute_features
from nbt.fit.validation import Integers
from nbt.models.weights import SourceClassMeans
from nbt.paths import absolute_path

if TYPE_CHECKING:
    import torch

    from nbt.progress import Progress
    from nbt.task.task import Task

IMAGES_PER_CLASS = 50
"""Images of a class that its mean is taken of."""


def source_class_means(
    task: Task,
    folder: str | Path,
    *,
    per_class: int = IMAGES_PER_CLASS,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> SourceClassMeans:
    """Returns where the classes of a source lie among the features of a task's pretrained weights.

    Args:
        task: Its weights, image size and normalisation are used, not its images.
        folder: One subfolder a class, or a train/val/test folder of such, of which the images for training count.
        per_class: Images of a class that are looked at, drawn by `seed`; the counts are of all of them.
        seed: 0 or more.
        device: The first GPU if there is one when None.
        progress: Called as progress(what, done, total) while images are decoded.

    Raises:
        UsageError: The folder holds no such images.
        NbtError: The cache of decoded images cannot be written.
    """
    rows = read_image_folder(absolute_path(folder))
    listing = listing_from_files("source", [row for row in rows if row.split in ("", "train")])
    chosen = listing.take(_draw_per_class(listing.labels, per_class, seed))
    images, kept = decode_images(chosen.items, task.image_size, progress=progress)
    place = pick_device(None if device is None else str(device))
    model = task.build_model().to(place)
    features = compute_features(model, dataclasses.replace(task, images=images), np.arange(len(kept)), place)
    means, present = class_means(features, chosen.labels[kept])
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))[present]
    return SourceClassMeans(means, counts.astype(np.int64), tuple(listing.class_names[i] for i in present))


def class_means(features: npt.NDArray[np.float32], labels: Integers) -> tuple[npt.NDArray[np.float32], Integers]:
    """Returns the mean features of each class that occurs, float32 (C, D), and these classes, int64 (C,)."""
    present, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), features.shape[1]))
    np.add.at(sums, codes, features)
    return (sums / np.bincount(codes)[:, None]).astype(np.float32), present


def _draw_per_class(labels: Integers, per_class: int, seed: int) -> Integers:
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)]))
