"""The registry of dataset readers."""

from __future__ import annotations

from pathlib import Path

from nbt.cache import CacheUse
from nbt.data.listing import Listing, listing_from_files
from nbt.data.readers.cub import fetch_cub, read_cub
from nbt.data.readers.digits import read_digits
from nbt.data.readers.image_folder import read_image_folder
from nbt.data.readers.manifest import read_manifest
from nbt.data.readers.numbers import read_numbers
from nbt.data.readers.omniglot import read_small_omniglot
from nbt.data.readers.torchvision_datasets import read_torchvision
from nbt.data.resolve import DatasetSource
from nbt.errors import UsageError
from nbt.progress import Progress

# The downloads that this process reads, which no other process may remove.
_downloads: dict[str, CacheUse] = {}


def read_dataset(source: DatasetSource, *, progress: Progress | None = None) -> Listing:
    """Lists the images of a dataset; downloads a known dataset at the first use.

    Args:
        source: The dataset, from `nbt.data.resolve.resolve`.
        progress: Called while files are downloaded and unpacked.

    Raises:
        UsageError: The dataset is malformed.
        NbtError: The dataset cannot be downloaded or unpacked.
    """
    name, path = source.spec.name, source.path
    if source.spec.fetched and path is None:
        _downloads.setdefault(name, CacheUse("datasets", name))
    if source.kind == "digits":
        return read_digits()
    if source.kind == "numbers":
        return read_numbers()
    if source.kind == "torchvision":
        return read_torchvision(name, path, progress=progress)
    if source.kind == "cub":
        return _list_cub(name, path or fetch_cub(progress))
    assert path is not None, "datasets of the other kinds are files or folders of the user"
    if source.kind == "omniglot-small":
        return listing_from_files(name, read_small_omniglot(path, progress=progress))
    files, layout = read_image_folder(path) if source.kind == "folder" else (read_manifest(path), None)
    return listing_from_files(name, files.images, passed_over=files.passed_over, layout=layout)


def _list_cub(name: str, folder: Path) -> Listing:
    class_names, rows = read_cub(folder)
    if len(class_names) < 2:
        raise UsageError(f"{folder}: has {len(class_names)} classes with images; expected two or more")
    return listing_from_files(name, rows, class_names)
