"""Conversion of a task to arrays that the workers of one machine share, independent of files on the driver."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def to_shared_arrays(task: Any) -> Any:
    """Returns a task that depends on no file or device of this machine.

    The images become one plain uint8 array, even if they are mapped from a file, and the weights become NumPy arrays:
    Ray keeps one copy of an array per node, which the workers map. Objects other than `nbt.task.task.Task` are returned
    unchanged.
    """
    from nbt.task.task import Task

    if not isinstance(task, Task):
        return task
    return task.map_images(_to_plain).map_candidates(lambda found: _convert(found, _to_array))


def from_shared_arrays(task: Any) -> Any:
    """Returns the task from the result of `to_shared_arrays`; shared arrays are read-only."""
    from nbt.task.task import Task

    return task.map_candidates(lambda found: _convert(found, _to_tensor)) if isinstance(task, Task) else task


def shared_nbytes(task: Any) -> int:
    """Returns the approximate size of a converted task, in bytes; 0 for other objects."""
    from nbt.task.task import Task

    if not isinstance(task, Task):
        return 0
    tasks = (task, *task.candidates.values())
    states = [state for found in tasks for state in (found.w0, found.source_head or {})]
    states += [teacher.w0 for teacher in task.teachers]
    images = {id(found.images): found.images.nbytes for found in tasks}
    sources = [found.source_data.images for found in tasks if found.source_data is not None]
    images |= {id(store): store.nbytes for store in sources}
    return sum(images.values()) + sum(int(value.nbytes) for state in states for value in state.values())


def _to_plain(store: Any, _name: str) -> Any:
    """Returns the images as a plain array, even if they are mapped from a file."""
    return dataclasses.replace(store, array=np.ascontiguousarray(store.array).view(np.ndarray), path=None)


def _convert(task: Any, convert: Callable[[Any], Any]) -> Any:
    """Returns the task with all weights converted by `convert`."""

    def convert_state(state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        return None if state is None else {name: convert(tensor) for name, tensor in state.items()}

    teachers = tuple(dataclasses.replace(teacher, w0=convert_state(teacher.w0)) for teacher in task.teachers)
    return dataclasses.replace(
        task, w0=convert_state(task.w0), source_head=convert_state(task.source_head), teachers=teachers
    )


def _to_array(tensor: Any) -> Any:
    try:
        return tensor.detach().cpu().contiguous().numpy()
    except TypeError:  # NumPy has no bfloat16
        return tensor


def _to_tensor(array: Any) -> Any:
    import torch

    if not isinstance(array, np.ndarray):
        return array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
