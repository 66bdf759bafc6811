"""Reads a folder with one subfolder a class, and a train/val/test folder of such."""

from __future__ import annotations

import logging
from pathlib import Path

from nbt.data.image_files import SPLIT_ALIASES, LabelledFile, has_image, image_files, subfolders
from nbt.errors import UsageError

logger = logging.getLogger("nbt")


def find_split_folders(folder: Path) -> dict[str, Path]:
    """Returns the folders of a train/val/test folder by role; empty where `folder` holds the classes themselves.

    It is taken for one if a folder called train (or training) holds class folders, and stands alone or beside one
    for validation or test: classes may be called train and test too.

    Raises:
        UsageError: Two folders have the same role, such as "val" and "validation".
    """
    parts: dict[str, Path] = {}
    everything = subfolders(folder)
    for child in everything:
        split = SPLIT_ALIASES.get(child.name.lower())
        if split in parts:
            raise UsageError(f"{folder}: {parts[split].name}/ and {child.name}/ are both {split}; keep one of them")
        if split:
            parts[split] = child
    if "train" not in parts or not any(has_image(child) for child in subfolders(parts["train"])):
        return {}
    return parts if len(parts) > 1 or len(everything) == 1 else {}


def check_image_folder(folder: Path) -> None:
    """Checks that a folder can be a dataset, opening no image and listing no more than it must.

    Raises:
        UsageError: It holds no images, images outside class folders only, one class, or an empty class folder.
    """
    parts = find_split_folders(folder)
    place = parts.get("train", folder)
    classes = subfolders(place)
    empty = [child.name for child in classes if not has_image(child)]
    if len(empty) == len(classes):
        raise UsageError(_explain_no_images(place))
    if len(classes) == 1:
        raise UsageError(f"{place} has one class only ({classes[0].name}); a task needs two or more class folders")
    if empty and "val" not in parts:
        raise UsageError(f"{place}: class {empty[0]!r} has no images; add some or remove its folder")


def read_image_folder(folder: Path) -> list[LabelledFile]:
    """Returns the images of a folder of class folders, or of a train/val/test folder of such.

    Images deeper inside a class folder belong to the class.

    Raises:
        UsageError: As `check_image_folder`; or a class is in validation or test, but not in train.
    """
    check_image_folder(folder)
    parts = find_split_folders(folder)
    if not parts:
        return _read_classes(folder, "")
    others = [child.name for child in subfolders(folder) if child not in parts.values()]
    if others:
        logger.warning("%s: read as a train/val/test folder; left out: %s", folder, ", ".join(others))
    rows = [row for split, place in parts.items() for row in _read_classes(place, split)]
    known = {row.label for row in rows if row.split == "train"}
    for row in rows:
        if row.label not in known:
            raise UsageError(f"{folder}: class {row.label!r} is in {row.split}, but has no images in train")
    return rows


def _read_classes(folder: Path, split: str) -> list[LabelledFile]:
    return [LabelledFile(path, child.name, split) for child in subfolders(folder) for path in image_files(child)]


def _explain_no_images(folder: Path) -> str:
    if has_image(folder):
        return f"{folder} has images, but no class folders; put the images of each class into a subfolder of its own"
    return f"{folder} has no images; expected one subfolder a class, with .jpg, .png, .webp or other image files"
