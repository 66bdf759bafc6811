"""Reads a folder with one subfolder per class, or a train/val/test folder of such folders."""

from __future__ import annotations

import logging
from pathlib import Path

from nbt.data.image_files import (
    SPLIT_ALIASES,
    LabelledFile,
    LabelledFiles,
    PassedOver,
    describe_passed_over,
    has_image,
    image_files,
    scan_files,
    subfolders,
)
from nbt.errors import UsageError

logger = logging.getLogger("nbt")

LOOSE = "outside the class folders"
BESIDE_SPLITS = "in a folder beside the train, validation and test folders"


def find_split_folders(folder: Path) -> dict[str, Path]:
    """Returns the folders of a train/val/test folder by split; empty where `folder` holds the classes themselves.

    A folder is read as train/val/test if its subfolder train (or training) holds class folders, and is either the only
    subfolder or next to a validation or test folder, because classes may also be called train or test.

    Raises:
        UsageError: Two folders belong to the same split, such as "val" and "validation".
    """
    parts: dict[str, Path] = {}
    children = subfolders(folder)
    for child in children:
        split = SPLIT_ALIASES.get(child.name.lower())
        if split in parts:
            raise UsageError(f"{folder}: {parts[split].name}/ and {child.name}/ are both {split}; keep one of them")
        if split:
            parts[split] = child
    if "train" not in parts or not any(has_image(child) for child in subfolders(parts["train"])):
        return {}
    return parts if len(parts) > 1 or len(children) == 1 else {}


def check_image_folder(folder: Path) -> None:
    """Checks that a folder can be a dataset, without opening images.

    Raises:
        UsageError: The folder has no images, no class folders, one class only, or an empty class folder.
    """
    parts = find_split_folders(folder)
    class_parent = parts.get("train", folder)
    classes = subfolders(class_parent)
    empty = [child.name for child in classes if not has_image(child)]
    if len(empty) == len(classes):
        raise UsageError(_explain_no_images(class_parent))
    if len(classes) == 1:
        raise UsageError(
            f"{class_parent} has one class only ({classes[0].name}); a task needs two or more class folders"
        )
    if empty and "val" not in parts:
        found = _found_instead(class_parent / empty[0])
        raise UsageError(f"{class_parent}: class {empty[0]!r} has no images; add some or remove its folder{found}")


def read_image_folder(folder: Path) -> LabelledFiles:
    """Lists the images of a folder of class folders, or of a train/val/test folder of such.

    Images in subfolders of a class folder belong to the class.

    Raises:
        UsageError: The folder fails `check_image_folder`, or a class is in validation or test, but not in train.
    """
    check_image_folder(folder)
    parts = find_split_folders(folder)
    result = LabelledFiles([], [])
    if not parts:
        _read_classes(folder, "", result)
        return result
    for split, part in parts.items():
        _read_classes(part, split, result)
    _read_loose_files(folder, result)
    ignored = [child for child in subfolders(folder) if child not in parts.values()]
    if ignored:
        names = ", ".join(child.name for child in ignored)
        logger.warning("%s: read as a train/val/test folder; ignored: %s", folder, names)
    for child in ignored:
        result.passed_over.extend(PassedOver(path, BESIDE_SPLITS) for path in image_files(child))
    train_classes = {row.label for row in result.images if row.split == "train"}
    for row in result.images:
        if row.label not in train_classes:
            raise UsageError(f"{folder}: class {row.label!r} is in {row.split}, but has no images in train")
    return result


def _read_classes(folder: Path, split: str, result: LabelledFiles) -> None:
    """Adds the files of the class folders in `folder`, and those beside them, to `result`."""
    for child in subfolders(folder):
        for file in scan_files(child):
            if isinstance(file, PassedOver):
                result.passed_over.append(file)
            else:
                result.images.append(LabelledFile(file, child.name, split))
    _read_loose_files(folder, result)


def _read_loose_files(folder: Path, result: LabelledFiles) -> None:
    for file in scan_files(folder, recursive=False):
        result.passed_over.append(file if isinstance(file, PassedOver) else PassedOver(file, LOOSE))


def _explain_no_images(folder: Path) -> str:
    if has_image(folder):
        return f"{folder} has images, but no class folders; put the images of each class into a separate subfolder"
    return (
        f"{folder} has no images; expected one subfolder per class, with .jpg, .png, .webp or other image files"
        f"{_found_instead(folder)}"
    )


def _found_instead(folder: Path) -> str:
    """Returns the end of a message: the files that a folder without images holds."""
    found = describe_passed_over(file for file in scan_files(folder) if isinstance(file, PassedOver))
    return f"; found {found}" if found else ""
