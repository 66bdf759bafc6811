"""Reads a folder with one subfolder per class, or a train/val/test folder of such folders."""

from __future__ import annotations

import logging
from pathlib import Path

from nbt.data.image_files import SPLIT_ALIASES, LabelledFile, has_image, image_files, subfolders
from nbt.errors import UsageError

logger = logging.getLogger("nbt")


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
        raise UsageError(f"{class_parent}: class {empty[0]!r} has no images; add some or remove its folder")


def read_image_folder(folder: Path) -> list[LabelledFile]:
    """Lists the images of a folder of class folders, or of a train/val/test folder of such.

    Images in subfolders of a class folder belong to the class.

    Raises:
        UsageError: The folder fails `check_image_folder`, or a class is in validation or test, but not in train.
    """
    check_image_folder(folder)
    parts = find_split_folders(folder)
    if not parts:
        return _read_classes(folder, "")
    ignored = [child.name for child in subfolders(folder) if child not in parts.values()]
    if ignored:
        logger.warning("%s: read as a train/val/test folder; ignored: %s", folder, ", ".join(ignored))
    rows = [row for split, part in parts.items() for row in _read_classes(part, split)]
    train_classes = {row.label for row in rows if row.split == "train"}
    for row in rows:
        if row.label not in train_classes:
            raise UsageError(f"{folder}: class {row.label!r} is in {row.split}, but has no images in train")
    return rows


def _read_classes(folder: Path, split: str) -> list[LabelledFile]:
    return [LabelledFile(path, child.name, split) for child in subfolders(folder) for path in image_files(child)]


def _explain_no_images(folder: Path) -> str:
    if has_image(folder):
        return f"{folder} has images, but no class folders; put the images of each class into a separate subfolder"
    return f"{folder} has no images; expected one subfolder per class, with .jpg, .png, .webp or other image files"
