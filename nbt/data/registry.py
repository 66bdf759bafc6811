"""The registry of dataset readers."""

from __future__ import annotations

from collections.abc import Callable

from nbt.data.listing import Listing, listing_from_files
from nbt.data.resolve import DatasetSource
from nbt.errors import UsageError
from nbt.progress import Progress


def read_dataset(source: DatasetSource, *, progress: Progress | None = None) -> Listing:
    """Lists the images of a dataset; downloads a known dataset at the first use.

    Args:
        source: The dataset, from `nbt.data.resolve.resolve`.
        progress: Called while files are downloaded and unpacked.

    Raises:
        UsageError: The dataset is malformed.
        NbtError: The dataset cannot be downloaded or unpacked.
    """
    return _READERS[source.kind](source, progress)


def _list_digits(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.digits import read_digits

    return read_digits()


def _list_cub(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.cub import fetch_cub, read_cub

    folder = source.path or fetch_cub(progress)
    class_names, rows = read_cub(folder)
    if len(class_names) < 2:
        raise UsageError(f"{folder}: has {len(class_names)} classes with images; a task needs two or more")
    return listing_from_files(source.spec.name, rows, class_names)


def _list_small_omniglot(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.omniglot import read_small_omniglot

    assert source.path is not None
    return listing_from_files(source.spec.name, read_small_omniglot(source.path, progress=progress))


def _list_torchvision(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.torchvision_datasets import read_torchvision

    return read_torchvision(source.spec.name, source.path, progress=progress)


def _list_folder(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.image_folder import read_image_folder

    assert source.path is not None
    return listing_from_files(source.spec.name, read_image_folder(source.path))


def _list_manifest(source: DatasetSource, progress: Progress | None) -> Listing:
    from nbt.data.readers.manifest import read_manifest

    assert source.path is not None
    return listing_from_files(source.spec.name, read_manifest(source.path))


_READERS: dict[str, Callable[[DatasetSource, Progress | None], Listing]] = {
    "digits": _list_digits,
    "cub": _list_cub,
    "omniglot-small": _list_small_omniglot,
    "torchvision": _list_torchvision,
    "folder": _list_folder,
    "manifest": _list_manifest,
}
