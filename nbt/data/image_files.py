"""Labelled image files, files that are passed over, class order and folder listings, shared by the dataset readers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from nbt.data.formats import HIDDEN, is_hidden, reason_to_pass_over

SYSTEM_FOLDER = "hidden, thumbnail or system folder"
OUTPUT_FOLDER = "report or model of nbt"
LOOP = "link to a folder that was read already, or that holds the link"
SPECIAL = "pipe, socket or device"
SYSTEM_REASONS = (HIDDEN, SYSTEM_FOLDER, OUTPUT_FOLDER)
"""Reasons to pass over what is not part of a dataset, whatever it holds."""

# Files that together occur only in folders that nbt writes.
_OUTPUT_FILES = ({"report.html", "report.md"}, {"model.json", "weights.safetensors"})

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


class PassedOver(NamedTuple):
    """A file that is not read as an image of the dataset, or a folder that is not entered.

    Attributes:
        path: The file or folder.
        reason: Why it is not read, such as "not an image".
    """

    path: Path
    reason: str

    @property
    def suffix(self) -> str:
        """Suffix of the file in lower case, with its dot; "" for none."""
        return self.path.suffix.lower()


class LabelledFiles(NamedTuple):
    """The files of a dataset: the labelled images, and the files that are passed over."""

    images: list[LabelledFile]
    passed_over: list[PassedOver]


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Returns the distinct class names in order: numerically if all are whole numbers, else alphabetically."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders inside `folder` that are not hidden, sorted by name, without links to what holds it."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not is_hidden(entry.name) and is_folder(entry)]
    return [folder / name for name in sorted(names) if not _is_loop(folder / name, set())]


def scan_files(folder: Path, *, recursive: bool = True) -> Iterator[Path | PassedOver]:
    """Yields the image files in `folder` and below it in a fixed order, and the files and folders that are passed over.

    Hidden, thumbnail and system folders, and folders that nbt wrote, are not entered. Links to folders are followed,
    but every target is entered once only.

    Args:
        folder: The folder.
        recursive: Whether to descend into folders.
    """
    entered = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        if any(names.issubset(files) for names in _OUTPUT_FILES):
            folders.clear()
            yield PassedOver(Path(parent), OUTPUT_FOLDER)
            continue
        for name in sorted(filter(is_hidden, folders)):
            yield PassedOver(Path(parent, name), SYSTEM_FOLDER)
        loops = {name for name in sorted(folders) if not is_hidden(name) and _is_loop(Path(parent, name), entered)}
        yield from (PassedOver(Path(parent, name), LOOP) for name in sorted(loops))
        folders[:] = sorted(name for name in folders if recursive and not is_hidden(name) and name not in loops)
        for name in sorted(files):
            path = Path(parent, name)
            reason = SPECIAL if _is_special(path) else reason_to_pass_over(path)
            yield PassedOver(path, reason) if reason else path


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a folder or a link to one; a link to itself is not."""
    return os.path.isdir(entry)  # noqa: PTH112 - `entry.is_dir` raises at a link to itself


def _is_loop(path: Path, entered: set[str]) -> bool:
    """Returns whether a path is a link to a folder that holds it or was entered; adds the target of a link."""
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    is_loop = target in entered or Path(os.path.realpath(path.parent)).is_relative_to(target)
    entered.add(target)
    return is_loop


def _is_special(path: Path) -> bool:
    """Returns whether a path is no file, so that reading it may never end; a missing file is none."""
    try:
        return not S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def image_files(folder: Path) -> Iterator[Path]:
    """Yields the image files in `folder` and below it in a fixed order, without hidden files and folders."""
    return (path for path in scan_files(folder) if isinstance(path, Path))


def first_image(folder: Path, *, recursive: bool = True) -> Path | None:
    """Returns the first image in `folder` or, if `recursive`, below it; None without one."""
    return next((file for file in scan_files(folder, recursive=recursive) if isinstance(file, Path)), None)


def has_image(folder: Path) -> bool:
    """Returns whether there is an image in `folder` or below it."""
    return first_image(folder) is not None


def describe_passed_over(files: Iterable[PassedOver]) -> str:
    """Returns the files that are passed over, counted by suffix and reason, in words; most frequent first."""
    counts = Counter((file.suffix or "without a suffix", file.reason) for file in files)
    return "; ".join(f"{count} {suffix} ({reason})" for (suffix, reason), count in counts.most_common())
