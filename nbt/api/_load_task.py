"""Loading of a task from the name or path of a dataset."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from nbt.checks import log_failed
from nbt.errors import UsageError, nearest
from nbt.machine.cores import limit_spinning
from nbt.progress import Progress as ProgressCallback

if TYPE_CHECKING:
    from nbt.task.task import Task


class TaskOptions(TypedDict, total=False):
    """Options of `load_task` besides the dataset; `search`, `train` and other functions pass them on.

    Attributes:
        backbone: A torchvision classifier with keyword arguments, "timm:NAME", "conv3" or "conv4"; the dataset's
            default when None.
        weights: "default" (the backbone's pretrained weights), "none" (random weights) or a file.
        data_dir: Folder that already holds a dataset known by name.
        image_size: Height and width in pixels; the default of dataset and backbone when None.
        classes: Number of classes to use, from the first on; all when None.
        shots: Maximum number of labelled images per class; all when None.
        teacher: Backbone whose weights a trial may inject, "BACKBONE" or "BACKBONE=FILE", or a list of such; no
            injection when None.
        resize: How images become square: "crop", "pad" or "squash".
        source_data: Labelled images of what the weights were trained on, a folder or CSV manifest; trials then measure
            how well the weights' own classifier still classifies them. Not measured when None.
        seed: Seed of the train/validation split and of the shots, and of the search or training; 0 or more.
        progress: Whether to show the progress: None on a terminal and in a notebook, False never, True everywhere; or
            a callback, called as progress(activity, done, total) during downloads, decoding and pretraining.
    """

    backbone: str | None
    weights: str | Path
    data_dir: str | Path | None
    image_size: int | None
    classes: int | None
    shots: int | None
    resize: str
    teacher: str | Sequence[str] | None
    source_data: str | Path | None
    seed: int
    progress: ProgressCallback | bool | None


def load_task(dataset: str | Path, **options: Unpack[TaskOptions]) -> Task:
    """Loads a dataset and the pretrained weights to transfer to it; see `nbt.task.load.load_task`.

    Default weights that nbt trains itself (conv3 and conv4 for digits) are trained at first use and cached. Failed
    checks of the data are logged; all results are in `Task.checks`.

    Args:
        dataset: A known name, a folder with one subfolder per class, a folder with train/val/test subfolders of that
            kind, or a CSV manifest.
        **options: See `TaskOptions`.

    Raises:
        UsageError: An argument is invalid.
        NbtError: A file cannot be downloaded or written.

    Examples:
        >>> import nbt
        >>> nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        Task(digits, conv3(width=8), weights none, 5 classes, 28 px, ... training, ... validation and ... test images)
    """
    task = load_silently(dataset, **options)
    log_failed(task.checks)
    return task


def load_silently(dataset: str | Path, **options: Unpack[TaskOptions]) -> Task:
    """Loads a task as `load_task` does, for callers that show the checks of the data themselves."""
    limit_spinning()
    from nbt.display.progress import Progress, shown_progress
    from nbt.task.load import load_task as load
    from nbt.training.digits_source import pretrained_source

    others: dict[str, Any] = {name: value for name, value in options.items() if name != "progress"}
    with shown_progress(options.get("progress"), Progress) as (progress, _):
        source = functools.partial(pretrained_source, progress=progress)
        return load(dataset, pretrained=source, progress=progress, **others)


def load_candidate(
    task: Task, backbone: str, weights: str, image_size: int | None, progress: ProgressCallback | None
) -> Task:
    """Loads another backbone for the images of a task; see `nbt.task.load.load_candidate`."""
    from nbt.task.load import load_candidate as load
    from nbt.training.digits_source import pretrained_source

    source = functools.partial(pretrained_source, progress=progress)
    return load(task, backbone, weights, image_size, pretrained=source, progress=progress)


def callback_of(options: TaskOptions) -> ProgressCallback | None:
    """Returns the progress callback among the options of a task; None without one."""
    progress = options.get("progress")
    return progress if callable(progress) else None


def check_task(task: object) -> None:
    """Raises UsageError unless the object is a loaded task."""
    from nbt.task.task import Task

    if not isinstance(task, Task):
        raise UsageError(f"{task!r} is no task: give nbt.load_task(...), or the name or path of a dataset")


def refuse_source_data(options: TaskOptions, what: str) -> None:
    """Checks that a function that does not measure source accuracy is not asked for it.

    Args:
        options: Options of the task.
        what: What has no source accuracy, for the message.

    Raises:
        UsageError: `source_data` is given.
    """
    if options.get("source_data") is not None:
        raise UsageError(f"source_data: {what} have no source accuracy; leave it out")


def as_task(task: Task | str | Path, options: TaskOptions) -> Task:
    """Returns a loaded task unchanged, or loads the task of a dataset.

    Args:
        task: A loaded task, or the name or path of a dataset.
        options: Options of the task.

    Raises:
        UsageError: `options` are given with a loaded task, or are invalid.
    """
    if isinstance(task, str | Path):
        return load_task(task, **options)
    check_task(task)
    for name in options:
        if name not in TaskOptions.__annotations__:
            raise UsageError(f"unknown option {name!r}; {nearest(name, TaskOptions.__annotations__)}")
    extra = [name for name, value in options.items() if name != "progress" and value is not None]
    if extra:
        raise UsageError(f"{', '.join(extra)}: a loaded task has its own; pass them to load_task")
    return task
