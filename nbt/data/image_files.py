"""Labelled image files, class order and folder listings, shared by the dataset readers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif")
)

SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""The name of the split for every accepted spelling."""


class LabelledFile(NamedTuple):
    """A labelled image file.

    Attributes:
        path: The file.
        label: Name of the class.
        split: Official split, "train", "val" or "test"; "" where the dataset has none.
    """

    path: Path
    label: str
    split: str = ""


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Returns the distinct class names in order: numerically if all are whole numbers, else alphabetically."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders inside `folder` that are not hidden, sorted by name."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not _is_hidden(entry.name) and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def image_files(folder: Path) -> Iterator[Path]:
    """Yields the image files in `folder` and below it in a fixed order, without hidden files and folders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(files):
            if is_image_name(name) and not _is_hidden(name):
                yield Path(parent, name)


def is_image_name(name: str) -> bool:
    """Returns whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def has_image(folder: Path) -> bool:
    """Returns whether there is an image in `folder` or below it."""
    return next(image_files(folder), None) is not None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
