"""Loads a task, checking everything that is quick to check before the slow steps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.models.backbone_spec import ENCODER_NAMES, BackboneSpec, parse_backbone
from nbt.models.teacher import load_teacher, parse_teachers
from nbt.task.options import TaskOptions, check_source_data, check_task_options

if TYPE_CHECKING:
    from nbt.data.listing import Listing
    from nbt.data.resolve import DatasetSource
    from nbt.models.weights import PretrainedWeights
    from nbt.progress import Progress
    from nbt.task.source_data import SourceData
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
    teacher: str | Sequence[str] | None = None,
    resize: str = "crop",
    source_data: str | Path | None = None,
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
        teacher: The teacher whose weights can be injected, or several: "BACKBONE" (the library's weights) or
            "BACKBONE=FILE".
        resize: How images become square: "crop", "pad" or "squash".
        source_data: Labelled images of the source task, a folder or CSV manifest; see `nbt.task.source_data`.
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
        resize=resize,
        source_data=source_data,
        seed=seed,
    )
    from nbt.data.contents import Contents
    from nbt.task.data import decode_selection, select_images
    from nbt.task.task import Task

    selection = select_images(options, progress)
    size, source_weights = _load_weights(options, pretrained)
    teachers = tuple(map(load_teacher, parse_teachers(teacher)))
    source = None
    if options.source_data is not None:
        facts = options.backbone, options.weights, source_weights, size, resize
        source = _load_source_data(options.source_data, *facts, progress)
        source.warn_of_copies()
    data = decode_selection(selection, options, size, progress)
    contents = Contents.of(data.listing, (f"--resize {resize}",))
    return Task(
        dataset=options.source.dataset,
        class_names=data.listing.class_names,
        fingerprint=task_fingerprint(data.listing, size, options),
        content_hash=data.listing.content_hash,
        images=data.images,
        labels=data.listing.labels,
        pools=data.pools,
        split=data.split,
        mirror=options.source.spec.mirror,
        seed=seed,
        data_dir=options.data_dir,
        classes=classes,
        shots=shots,
        teachers=teachers,
        resize=resize,
        source_data=source,
        checks=data.checks,
        copied_test=tuple(data.copied_test.tolist()),
        contents=None if contents is None else contents.to_bytes(),
        **_backbone_fields(options, source_weights),
    )


def load_candidate(
    task: Task,
    backbone: str,
    weights: str | Path = "default",
    image_size: int | None = None,
    *,
    pretrained: PretrainedProvider | None = None,
    progress: Progress | None = None,
) -> Task:
    """Loads another backbone for the images of a task, which are decoded again only if their size differs.

    Args:
        task: The task.
        backbone: The backbone.
        weights: Its weights.
        image_size: As in `load_task`.
        pretrained: As in `load_task`.
        progress: As in `load_task`.

    Raises:
        UsageError: An argument is wrong.
        NbtError: A file cannot be downloaded or written.
    """
    names = ("data_dir", "classes", "shots", "resize", "seed")
    values: dict[str, Any] = {"backbone": backbone, "weights": weights, "image_size": image_size}
    values |= {name: getattr(task, name) for name in names}
    options = check_task_options(task.dataset, **values)
    size, source_weights = _load_weights(options, pretrained)
    if size != task.image_size:
        return load_task(task.dataset, pretrained=pretrained, progress=progress, **values)
    return dataclasses.replace(task, candidates={}, source_data=None, **_backbone_fields(options, source_weights))


def with_source_data(task: Task, path: str | Path, progress: Progress | None = None) -> Task:
    """Returns a task with images of the source of its weights, for backbones whose weights may have no classifier.

    Args:
        task: The task.
        path: As `source_data` in `load_task`.
        progress: As in `load_task`.

    Raises:
        UsageError: The images are malformed, or the weights have no classifier of their classes.
        NbtError: The cache cannot be written.
    """
    facts = task.backbone, task.weights, task, task.image_size, task.resize
    return dataclasses.replace(task, source_data=_load_source_data(check_source_data(path), *facts, progress))


def _load_source_data(
    source: DatasetSource,
    backbone: BackboneSpec,
    weights: str,
    pretrained: PretrainedWeights | Task,
    size: int,
    resize: str,
    progress: Progress | None,
) -> SourceData:
    from nbt.models.source_classes import source_classes
    from nbt.task.source_data import load_source_data

    classes = source_classes(backbone, weights, pretrained.source_head, pretrained.source_means)
    return load_source_data(source, classes, size, resize=resize, progress=progress)


def _backbone_fields(options: TaskOptions, weights: PretrainedWeights) -> dict[str, Any]:
    """Returns the fields of a task that depend on its backbone and weights."""
    names = ("w0", "mean", "std", "source_head", "source_means", "stale_statistics")
    fields = {name: getattr(weights, name) for name in names}
    return {"backbone": options.backbone, "weights": options.weights, **fields}


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


def task_fingerprint(listing: Listing, size: int, options: TaskOptions) -> str:
    """Returns a hash of the listing and of the options that select images or their size."""
    shots = None if options.shots is None else [options.shots, options.seed]
    selection: dict[str, Any] = {"classes": options.classes, "shots": shots, "image_size": size}
    if options.resize != "crop":
        selection["resize"] = options.resize
    return hashlib.sha256(f"{listing.digest()}\n{json.dumps(selection, sort_keys=True)}".encode()).hexdigest()
