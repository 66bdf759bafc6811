"""Mean features of the source classes, computed from the source's images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.data.image_store import ImageStore, decode_images
from nbt.data.listing import listing_from_files
from nbt.data.readers.image_folder import read_image_folder
from nbt.devices import pick_device
from nbt.fit.activations import compute_features
from nbt.fit.validation import IntArray
from nbt.models.weights import SourceClassMeans
from nbt.paths import absolute_path

if TYPE_CHECKING:
    import torch

    from nbt.progress import Progress
    from nbt.task.task import Task

IMAGES_PER_CLASS = 50
"""Number of images per class from which the means are computed."""


def source_class_means(
    task: Task,
    folder: str | Path,
    *,
    per_class: int = IMAGES_PER_CLASS,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> SourceClassMeans:
    """Computes the mean features of the source classes with a task's pretrained weights.

    Args:
        task: The task whose weights, image size and normalisation are used, but not its images.
        folder: A folder with one subfolder per class, or a train/val/test folder of such, of which the training images
            are used.
        per_class: Number of images per class, drawn by `seed`; `SourceClassMeans.counts` counts all images.
        seed: Seed of the draw, 0 or more.
        device: Device of the computation; the first GPU, else the CPU, when None.
        progress: Called as progress(description, done, total) while images are decoded.

    Raises:
        UsageError: The folder contains no such images, or the device is unknown or not available.
        NbtError: The cache of decoded images cannot be written.
    """
    rows = read_image_folder(absolute_path(folder))[0].images
    listing = listing_from_files("source", [row for row in rows if row.split in ("", "train")])
    sample = listing.take(_draw_per_class(listing.labels, per_class, seed))
    images, kept = decode_images(sample.items, task.image_size, progress=progress)
    torch_device = pick_device(None if device is None else str(device))
    means, present = _means_of(task, images, np.arange(len(kept)), sample.labels[kept], torch_device)
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))[present]
    return SourceClassMeans(means, counts.astype(np.int64), tuple(listing.class_names[i] for i in present))


def means_of_source_data(task: Task, device: torch.device, *, seed: int = 0) -> SourceClassMeans | None:
    """Computes the mean features of the classes of a task's source images; None for a task without them.

    Args:
        task: The task.
        device: Device of the computation.
        seed: Seed of the draw of at most `IMAGES_PER_CLASS` images per class, 0 or more.
    """
    source = task.source_data
    if source is None:
        return None
    index = _draw_per_class(source.labels, IMAGES_PER_CLASS, seed)
    means, present = _means_of(task, source.images, index, source.labels[index], device)
    counts = np.bincount(source.labels)[present]
    return SourceClassMeans(means, counts.astype(np.int64), tuple(f"output {i}" for i in present))


def _means_of(
    task: Task, images: ImageStore, index: IntArray, labels: IntArray, device: torch.device
) -> tuple[npt.NDArray[np.float32], IntArray]:
    """Returns `class_means` of some images through the pretrained weights of a task."""
    model = task.build_model(device=device)
    return class_means(compute_features(model, dataclasses.replace(task, images=images), index, device), labels)


def class_means(features: npt.NDArray[np.float32], labels: IntArray) -> tuple[npt.NDArray[np.float32], IntArray]:
    """Returns the mean features of each occurring class, float32 (C, D), and these classes, int64 (C,)."""
    present, codes = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), features.shape[1]))
    np.add.at(sums, codes, features)
    return (sums / np.bincount(codes)[:, None]).astype(np.float32), present


def _draw_per_class(labels: IntArray, per_class: int, seed: int) -> IntArray:
    """Returns the sorted indices of at most `per_class` random images of each class."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)]))
