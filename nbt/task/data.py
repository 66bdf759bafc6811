"""The data of a task: its images are selected, divided into parts, decoded and checked, without PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from nbt.checks import CheckResult, run_checks
from nbt.data.checks.copies_across_parts import CopiesAcrossParts, copied_test_images
from nbt.data.checks.registry import DATA_CHECKS
from nbt.data.checks.subject import CheckedData
from nbt.data.image_store import ImageStore, decode_images
from nbt.data.listing import Listing
from nbt.data.registry import read_dataset
from nbt.data.splits import Index, Pools, Split, check_pools, limit_shots, make_pools, make_split
from nbt.errors import UsageError
from nbt.progress import Progress
from nbt.task.options import TaskOptions


@dataclass(frozen=True, eq=False)
class Selection:
    """The images of a task before decoding.

    Attributes:
        listing: The images.
        pools: Their pools.
        untrained: Number of images by class that has no image to train on and was left out.
    """

    listing: Listing
    pools: Pools
    untrained: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class TaskData:
    """The decoded images of a task.

    Attributes:
        listing: The images that could be decoded.
        images: The decoded images, in the same order.
        pools: Pools of the images.
        split: Training, validation and test images.
        checks: Results of the checks of the data.
        copied_test: Indices of the test images with a copy in training or validation, int64 (n,).
    """

    listing: Listing
    images: ImageStore
    pools: Pools
    split: Split
    checks: tuple[CheckResult, ...]
    copied_test: Index


def select_images(options: TaskOptions, progress: Progress | None) -> Selection:
    """Selects the images of a task, so that only these are decoded, and divides them into pools.

    Raises:
        UsageError: The dataset is malformed, or has too few images.
        NbtError: The dataset cannot be downloaded.
    """
    listing = read_dataset(options.source, progress=progress).select_classes(options.classes)
    try:
        pools = make_pools(listing.labels, listing.roles, listing.class_names)
    except UsageError as error:
        raise UsageError(f"{options.source.spec.name}: {error}") from error
    selection = _drop_untrained(Selection(listing, pools, {}))
    if options.shots is None:
        return selection
    pools = limit_shots(selection.pools, selection.listing.labels, options.shots, options.seed)
    used = np.sort(np.concatenate([part for part in (pools.train, pools.val, pools.test) if part is not None]))
    return _take(selection, used)


def decode_selection(
    selection: Selection,
    options: TaskOptions,
    size: int,
    progress: Progress | None,
    *,
    ignore: Collection[str] = (),
) -> TaskData:
    """Decodes and checks the images of a task; images that cannot be read are left out.

    Args:
        selection: The images.
        options: The options of the task.
        size: Height and width of the images in pixels.
        progress: Called with the number of decoded images.
        ignore: Codes of checks that are left out.

    Raises:
        UsageError: Too few images can be read.
        NbtError: The cache cannot be written.
    """
    selection = dataclasses.replace(selection, listing=selection.listing.with_hashes())
    images, readable = decode_images(
        selection.listing.items,
        size,
        resize=options.resize,
        progress=progress,
        hashes=selection.listing.hashes,
        dataset=options.source.dataset,
    )
    if len(readable) < len(selection.listing):
        selection, images = _drop_unreadable(_take(selection, readable), images)
    split = make_split(selection.pools, selection.listing.labels, options.seed)
    data = CheckedData(
        listing=selection.listing,
        images=images,
        split=split,
        resize=options.resize,
        test_is_official=bool((selection.listing.roles == "test").any()),
        untrained=selection.untrained,
        dataset=options.source.dataset,
    )
    checks = run_checks(DATA_CHECKS, data, ignore)
    has_copies = any(result.code == CopiesAcrossParts.code and result.is_failed for result in checks)
    copied = copied_test_images(data) if has_copies else np.empty(0, dtype=np.int64)
    return TaskData(selection.listing, images, selection.pools, split, checks, copied)


def _drop_unreadable(readable: Selection, images: ImageStore) -> tuple[Selection, ImageStore]:
    """Leaves out the classes of which no training image can be read.

    Args:
        readable: The images that could be decoded, in the order of `images`.
        images: The decoded images.

    Raises:
        UsageError: Too few images are left.
    """
    try:
        check_pools(readable.pools, readable.listing.labels, readable.listing.class_names)
    except UsageError as error:
        n, first = len(images.unreadable), images.unreadable[0]
        raise UsageError(
            f"{readable.listing.name}: {error}: {n} images cannot be read, the first is {first}"
        ) from error
    trained = _drop_untrained(readable)
    if trained is readable:
        return readable, images
    kept = _trained_images(readable)
    facts = tuple(images.facts[i] for i in kept.tolist())
    return trained, dataclasses.replace(images, array=images.array[kept], path=None, facts=facts)


def _drop_untrained(selection: Selection) -> Selection:
    """Leaves out the classes without a training image; returns the selection itself if there are none."""
    listing, trained = selection.listing, _trained_images(selection)
    labels = np.unique(listing.labels[trained])
    if len(labels) == len(listing.class_names):
        return selection
    counts = np.bincount(listing.labels, minlength=len(listing.class_names))
    dropped = {listing.class_names[i]: int(counts[i]) for i in np.setdiff1d(np.arange(len(counts)), labels).tolist()}
    taken = _take(selection, trained)
    return Selection(taken.listing.keep_classes(labels), taken.pools, {**selection.untrained, **dropped})


def _trained_images(selection: Selection) -> Index:
    """Returns the indices of the images of classes that have a training image."""
    labels = selection.listing.labels
    return np.flatnonzero(np.isin(labels, labels[selection.pools.train]))


def _take(selection: Selection, kept: Index) -> Selection:
    """Returns a selection of images, given by their ascending indices."""
    pools = selection.pools

    def positions(part: Index) -> Index:
        return np.flatnonzero(np.isin(kept, part))

    val = None if pools.val is None else positions(pools.val)
    taken = Pools(positions(pools.train), val if val is None or len(val) else None, positions(pools.test))
    return Selection(selection.listing.take(kept), taken, selection.untrained)
