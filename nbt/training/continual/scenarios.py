"""Scenarios: the classes and images of each task of a stream, and the outputs in its loss and its predictions.

The scenarios are those of van de Ven and Tolias, "Three scenarios for continual learning", arXiv 1904.07734, with
data-incremental (different images of the same classes) instead of domain-incremental.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.data.splits import Index
from nbt.errors import UsageError, nearest
from nbt.seeds import derive_seed
from nbt.settings.continual import EVALUATION_SPLITS, SCENARIOS
from nbt.task.task import Task

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ContinualStage:
    """One task of a stream.

    Attributes:
        number: Number of the task, 1 ... T.
        classes: Classes of the task, as labels of the dataset, in the order of the stream.
        train: Training images, sorted indices, int64 (n,).
        val: Validation images, likewise.
        test: Test images, likewise.
    """

    number: int
    classes: tuple[int, ...]
    train: Index
    val: Index
    test: Index

    def images(self, role: str) -> Index:
        """Returns the images of "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[role]


def make_stages(
    task: Task, scenario: str, tasks: int, seed: int, *, evaluate_on: str = "test"
) -> tuple[ContinualStage, ...]:
    """Divides a dataset into the tasks of a stream.

    In "data", the images of each class are shuffled and distributed over the tasks, separately for training, validation
    and test images, so that sizes differ by at most one per class and in total. In "task" and "class", the classes are
    shuffled and divided into groups whose sizes differ by at most one, larger groups first.

    Args:
        task: Images, labels and split.
        scenario: "data", "task" or "class".
        tasks: Number of tasks T.
        seed: Seed of the order of the classes or of the distribution of the images, 0 or more.
        evaluate_on: Evaluation images, "test" or "val"; every task needs some.

    Raises:
        UsageError: The scenario or `evaluate_on` is unknown, there are more tasks than classes, a task of a
            task-incremental stream would have one class only, or a task would have no training or evaluation images.
    """
    for name, value, known in (("scenario", scenario, SCENARIOS), ("evaluate on", evaluate_on, EVALUATION_SPLITS)):
        if value not in known:
            raise UsageError(f"{name} {value!r}: {nearest(value, known)}")
    if scenario == "data":
        stages = _split_images(task, tasks, seed)
    else:
        _check_classes(task.n_classes, scenario, tasks)
        stages = _split_classes(task, tasks, seed)
    for stage in stages:
        for role in ("train", evaluate_on):
            _check_images(task, stage, role, tasks)
    return stages


def class_order(task: Task, stages: Sequence[ContinualStage]) -> tuple[str, ...]:
    """Returns the names of the classes in the order of the stream."""
    order = dict.fromkeys(label for stage in stages for label in stage.classes)
    return tuple(task.class_names[label] for label in order)


def class_mask(n_classes: int, classes: Sequence[int]) -> Mask:
    """Returns a mask of the outputs of some classes, bool (C,)."""
    mask = np.zeros(n_classes, dtype=np.bool_)
    mask[list(classes)] = True
    return mask


def seen_classes(stages: Sequence[ContinualStage], number: int) -> tuple[int, ...]:
    """Returns the classes of the tasks 1 ... `number`."""
    return tuple(dict.fromkeys(label for stage in stages[:number] for label in stage.classes))


def trained_outputs(
    stages: Sequence[ContinualStage], scenario: str, number: int, n_classes: int, *, squared: bool
) -> Mask:
    """Returns the outputs in the loss of a task, bool (C,).

    "data" uses all outputs, "task" those of the task. "class" uses the outputs of the classes seen so far with
    cross-entropy, and all outputs with squared error: an unseen class has the target 0 and the curvature of all earlier
    tasks, so that with exact curvature the stream equals joint training on all images.

    Args:
        stages: All stages of the stream.
        scenario: "data", "task" or "class".
        number: Number of the task, 1 ... T.
        n_classes: Number of outputs C.
        squared: Whether the loss is squared error.
    """
    if scenario == "task":
        return class_mask(n_classes, stages[number - 1].classes)
    if scenario == "data" or squared:
        return np.ones(n_classes, dtype=np.bool_)
    return class_mask(n_classes, seen_classes(stages, number))


def predicted_outputs(
    stages: Sequence[ContinualStage], scenario: str, trained: int, evaluated: int, n_classes: int
) -> Mask:
    """Returns the outputs among which images of a task are classified, bool (C,).

    These are all outputs in "data", the outputs of the task in "task" (where the task of an image is known), and those
    of the classes seen so far in "class".

    Args:
        stages: All stages of the stream.
        scenario: "data", "task" or "class".
        trained: Number of the last trained task, 0 ... T.
        evaluated: Number of the task of the images, 1 ... T.
        n_classes: Number of outputs C.
    """
    if scenario == "class":
        return class_mask(n_classes, seen_classes(stages, trained))
    return class_mask(n_classes, stages[evaluated - 1].classes)


def _split_images(task: Task, tasks: int, seed: int) -> tuple[ContinualStage, ...]:
    split = task.split
    roles = {"train": split.train, "val": split.val, "test": split.test}
    images_by_role = {
        role: _split_images_evenly(index, task.labels, tasks, seed, role) for role, index in roles.items()
    }
    classes = tuple(range(task.n_classes))
    return tuple(
        ContinualStage(number + 1, classes, *(images_by_role[role][number] for role in ("train", "val", "test")))
        for number in range(tasks)
    )


def _split_images_evenly(index: Index, labels: npt.NDArray[np.int64], tasks: int, seed: int, role: str) -> list[Index]:
    """Distributes images over the tasks in turn, continuing from class to class, so that remainders are balanced."""
    rng = np.random.default_rng(derive_seed(seed, "parts", role))
    classes = rng.permutation(np.unique(labels[index]))
    order = [rng.permutation(index[labels[index] == label]) for label in classes]
    shuffled = np.concatenate([np.empty(0, dtype=np.int64), *order])
    return [np.sort(shuffled[first::tasks]) for first in range(tasks)]


def _split_classes(task: Task, tasks: int, seed: int) -> tuple[ContinualStage, ...]:
    order = np.random.default_rng(derive_seed(seed, "class order")).permutation(task.n_classes)
    labels, split = task.labels, task.split
    stages = []
    for number, group in enumerate(np.array_split(order, tasks), start=1):
        images = [index[np.isin(labels[index], group)] for index in (split.train, split.val, split.test)]
        stages.append(ContinualStage(number, tuple(int(label) for label in group), *images))
    return tuple(stages)


def _check_classes(n_classes: int, scenario: str, tasks: int) -> None:
    if tasks > n_classes:
        raise UsageError(f"tasks {tasks}: the dataset has {n_classes} classes; give --tasks {n_classes} or fewer")
    if scenario == "task" and 2 * tasks > n_classes:
        max_tasks = n_classes // 2
        remedy = f"give --tasks {max_tasks} or fewer" if max_tasks >= 2 else "use --scenario class"
        raise UsageError(
            f"tasks {tasks}: with {n_classes} classes, a task would have one class, and its images could not be "
            f"classified incorrectly because their task is known; {remedy}"
        )


def _check_images(task: Task, stage: ContinualStage, role: str, tasks: int) -> None:
    if not len(stage.images(role)):
        names = {"train": "training", "val": "validation", "test": "test"}
        raise UsageError(
            f"tasks {tasks}: task {stage.number} would have no {names[role]} image; {task.dataset} has "
            f"{len(getattr(task.split, role))} in all; give fewer tasks"
        )
