"""Where commands that read no dataset may write: not among class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nbt.data.formats import IMAGE_SUFFIXES, is_hidden
from nbt.data.image_files import is_folder
from nbt.data.readers.split_names import split_of_name
from nbt.errors import UsageError
from nbt.paths import nearest_existing


def check_outside_class_folders(name: str, path: str | Path) -> None:
    """Checks that a file or folder is not inside a folder of class folders, into which nothing is written.

    A folder counts as one if it has two or more folders which all hold images, or folders of splits of this kind. No
    image is opened.

    Args:
        name: Name of the path in messages, e.g. "--out".
        path: The file or folder, which need not exist yet.

    Raises:
        UsageError: The path is in a dataset.
    """
    existing = nearest_existing(Path(path))
    # A path in a class folder of a split, data/train/cat/x, has the dataset as its third parent.
    for folder in (existing, *existing.parents[:3]):
        if _is_dataset(folder):
            raise UsageError(
                f"{name} {path}: is inside {folder}, a folder of class folders, into which nbt never writes; give "
                "another path"
            )


def _is_dataset(folder: Path) -> bool:
    splits = [child for child in _folders(folder) if split_of_name(child.name)]
    return _has_class_folders(folder) or (bool(splits) and all(map(_has_class_folders, splits)))


def _has_class_folders(folder: Path) -> bool:
    children = _folders(folder)
    return len(children) > 1 and all(map(_has_image, children))


def _has_image(folder: Path) -> bool:
    return any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in _entries(folder))  # noqa: PTH122


def _folders(folder: Path) -> list[Path]:
    return [Path(entry) for entry in _entries(folder) if is_folder(entry) and not is_hidden(entry.name)]


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return ()
