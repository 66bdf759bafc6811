"""From the name of a dataset to a task."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from nbt.errors import UsageError
from nbt.progress import Progress

if TYPE_CHECKING:
    from nbt.task.task import Task


class TaskOptions(TypedDict, total=False):
    """What `load_task` takes beside the dataset, and what `search` and `train` pass on to it.

    Attributes:
        backbone: A torchvision classifier with keyword arguments, conv3 or conv4; the dataset's default when None.
        weights: "default", "none" or a file.
        data_dir: Where a dataset known by name is.
        image_size: Pixels; the default of dataset and backbone when None.
        classes: The first so many classes only.
        shots: At most so many labelled images a class.
        teacher: Whose weights a trial may start from by injection, "BACKBONE" or "BACKBONE=FILE"; nobody's when None.
        seed: Of the train/validation split and of the shots, and of the search or training.
        progress: Called as progress(what, done, total) while something is fetched, decoded or pretrained.
    """

    backbone: str | None
    weights: str | Path
    data_dir: str | Path | None
    image_size: int | None
    classes: int | None
    shots: int | None
    teacher: str | None
    seed: int
    progress: Progress | None


def load_task(dataset: str | Path, **options: Unpack[TaskOptions]) -> Task:
    """Loads a dataset and the pretrained weights that are to be transferred to it; see `nbt.task.load.load_task`.

    Weights that are trained here (conv3 for digits) are made at first use and cached.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, or a CSV manifest.
        **options: See `TaskOptions`.

    Raises:
        UsageError: Something given is wrong.
        NbtError: Something cannot be fetched or written.
    """
    from nbt.task.load import load_task as load
    from nbt.training.digits_source import pretrained_source

    source = functools.partial(pretrained_source, progress=options.get("progress"))
    return load(dataset, pretrained=source, **options)


def as_task(given: Task | str | Path, options: TaskOptions) -> Task:
    """Returns a loaded task as it is, or loads the dataset that is named.

    Raises:
        UsageError: Options of a task are given beside a loaded one.
    """
    if isinstance(given, str | Path):
        return load_task(given, **options)
    extra = [name for name, value in options.items() if name != "progress" and value is not None]
    if extra:
        raise UsageError(f"{', '.join(extra)}: a loaded task has its own; give them to load_task")
    return given
