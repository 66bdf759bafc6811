"""Labelled images on which a model is evaluated: of a folder, a CSV manifest, a known dataset or a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbt.data.listing import Listing
from nbt.data.registry import read_dataset
from nbt.data.resolve import DatasetSource, resolve
from nbt.data.splits import make_pools
from nbt.errors import UsageError, nearest
from nbt.inference.images import ImageSource
from nbt.progress import Progress

if TYPE_CHECKING:
    from nbt.task.task import Task

PARTS = ("test", "val", "train", "all")
"""Names of the parts of a dataset that a model can be evaluated on."""

_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images.

    Attributes:
        source: The images.
        labels: Index of the class of each image in the classes of the model, int64 (n,).
        part: The part of the dataset, one of `PARTS`.
        reason: Why this part was chosen; "" where the user chose it.
    """

    source: ImageSource
    labels: npt.NDArray[np.int64]
    part: str
    reason: str = ""


def check_labelled(data: str | Path, data_dir: str | Path | None = None) -> DatasetSource:
    """Returns a dataset and its location, without opening an image.

    Raises:
        UsageError: The dataset does not exist, has no images, or has one class only.
    """
    try:
        return resolve(data, data_dir)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--dataset ")) from error


def read_labelled(
    dataset: DatasetSource,
    class_names: Sequence[str],
    *,
    part: str | None = None,
    trained_on: str | None = None,
    ignore_unknown: bool = False,
    progress: Progress | None = None,
) -> LabelledImages:
    """Lists the labelled images of a dataset.

    Args:
        dataset: The dataset, from `check_labelled`.
        class_names: The classes of the model.
        part: One of `PARTS`. "test" are the official test images or, without any, those that nbt holds out. None
            chooses "test" if there are official test images, or if the dataset has the name of the one that the model
            was trained on, and else "all".
        trained_on: Name of the dataset that the model was trained on.
        ignore_unknown: Whether images of classes that the model does not know are left out.
        progress: Called while a known dataset is downloaded.

    Raises:
        UsageError: The dataset is malformed, has classes that the model does not know, or no images in the part.
    """
    listing = read_dataset(dataset, progress=progress)
    labels = _model_labels(listing, class_names, dataset.spec.title, ignore_unknown)
    part, reason = (part, "") if part is not None else _choose_part(listing, trained_on)
    index = _part_index(listing, part)
    index = index[labels[index] >= 0]
    if not len(index):
        raise UsageError(f"{dataset.spec.title}: no images of the model's classes in the part {part!r}")
    taken = listing.take(index)
    source = ImageSource(list(taken.items), listing.passed_over, index.tolist())
    return LabelledImages(source, labels[index], part, reason)


def labelled_images_of(
    task: Task, class_names: Sequence[str], *, part: str | None = None, ignore_unknown: bool = False
) -> LabelledImages:
    """Returns the decoded images of a part of a loaded task; None is its test part.

    Raises:
        UsageError: The task has classes that the model does not know, or no images in the part.
    """
    part = part or "test"
    known = {name: position for position, name in enumerate(class_names)}
    _check_unknown([name for name in task.class_names if name not in known], class_names, task.dataset, ignore_unknown)
    mapping = np.array([known.get(name, -1) for name in task.class_names], dtype=np.int64)
    index = np.arange(len(task.labels)) if part == "all" else getattr(task.split, part)
    index = index[mapping[task.labels[index]] >= 0]
    if not len(index):
        raise UsageError(f"{task.dataset}: no images of the model's classes in the part {part!r}")
    source = ImageSource(_Rows(task.images.array, index), numbers=index.tolist())
    return LabelledImages(source, mapping[task.labels[index]], part)


class _Rows(Sequence[npt.NDArray[np.uint8]]):
    """Rows of an array of images, which may be a memory map, without a copy of all of them."""

    def __init__(self, array: npt.NDArray[np.uint8], index: npt.NDArray[np.int64]) -> None:
        self._array, self._index = array, index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: int) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        row: npt.NDArray[np.uint8] = self._array[self._index[position]]
        return row


def _model_labels(
    listing: Listing, class_names: Sequence[str], title: str, ignore_unknown: bool
) -> npt.NDArray[np.int64]:
    """Returns the index of the class of each image in the classes of the model, -1 for those that it does not know."""
    known = {name: position for position, name in enumerate(class_names)}
    _check_unknown([name for name in listing.class_names if name not in known], class_names, title, ignore_unknown)
    mapping = np.array([known.get(name, -1) for name in listing.class_names], dtype=np.int64)
    return mapping[listing.labels]


def _check_unknown(unknown: Sequence[str], class_names: Sequence[str], title: str, ignore: bool) -> None:
    if not unknown or ignore:
        return
    shown = ", ".join(map(repr, unknown[:_MAX_NAMES_SHOWN])) + (", ..." if len(unknown) > _MAX_NAMES_SHOWN else "")
    hint = nearest(unknown[0], class_names) if len(unknown) == 1 else f"known: {', '.join(list(class_names)[:12])}"
    count = "a class" if len(unknown) == 1 else f"{len(unknown)} classes"
    raise UsageError(
        f"{title}: has {count} that the model does not know ({shown}); {hint}; rename the folders or labels, or leave "
        "these images out with --ignore-unknown"
    )


def _choose_part(listing: Listing, trained_on: str | None) -> tuple[str, str]:
    if (listing.roles == "test").any():
        return "test", "the dataset has a test part"
    if trained_on is not None and listing.name == trained_on:
        return "test", "the model was trained on a dataset of this name, of which nbt held these images out"
    return "all", "the dataset has no test part"


def _part_index(listing: Listing, part: str) -> npt.NDArray[np.int64]:
    """Returns the indices of the images of a part.

    Raises:
        UsageError: The part is unknown or empty.
    """
    if part not in PARTS:
        raise UsageError(f"part {part!r}: expected one of {', '.join(PARTS)}")
    if part == "all":
        return np.arange(len(listing), dtype=np.int64)
    roles = listing.roles
    if part != "train" and (roles == part).any():
        return np.flatnonzero(roles == part)
    if part == "val":
        raise UsageError(f"{listing.name}: has no official validation images; give another part")
    if (roles == "test").any():
        return np.flatnonzero((roles != "val") & (roles != "test"))
    pools = make_pools(listing.labels, roles, listing.class_names)
    return pools.test if part == "test" else pools.train
