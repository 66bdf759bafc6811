"""A task of Omniglot whose source model was trained on other alphabets of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nbt
from nbt.data.resolve import resolve
from nbt.models.backbone_spec import parse_backbone
from nbt.settings.pretrain import default_pretrain_settings
from nbt.task.task import Task
from nbt.training.pretrain.scheme_sources import pretrain
from nbt.training.pretrain.source_images import load_source_images

SOURCE_CLASSES = 70


def load_omniglot(data_dir: Path, seed: int) -> Task:
    """Returns the task of those classes of the small Omniglot set on which its source model is not trained.

    Args:
        data_dir: Folder with the archive of the data set.
        seed: Seed of the split.
    """
    task = nbt.load_task(
        "omniglot-small", backbone="conv3", weights="none", data_dir=data_dir, image_size=28, seed=seed, progress=None
    )
    return dataclasses.replace(keep_classes(task, SOURCE_CLASSES), w0=source_weights(data_dir))


@functools.cache
def source_weights(data_dir: Path) -> Mapping[str, torch.Tensor]:
    """Returns the units of a model that is trained on the first classes."""
    images = load_source_images(resolve("omniglot-small", str(data_dir)), 28, classes=SOURCE_CLASSES)
    settings = default_pretrain_settings("iid", "conv3", epochs=17, batch_size=32)
    return dict(pretrain(images, parse_backbone("conv3"), settings, 0).weights.w0)


def keep_classes(task: Task, first: int) -> Task:
    """Returns the task restricted to the classes from number `first`."""

    def restrict(part: Any) -> Any:
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        values = {n: v[task.labels[v] >= first] if isinstance(v, np.ndarray) else v for n, v in values.items()}
        return dataclasses.replace(part, **values)

    labels = np.maximum(task.labels - first, 0)
    names = task.class_names[first:]
    pools, split = restrict(task.pools), restrict(task.split)
    return dataclasses.replace(
        task, labels=labels, class_names=names, pools=pools, split=split, fingerprint=f"omniglot from class {first}"
    )
