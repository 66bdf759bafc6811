"""Reads a folder with one subfolder per class, or a train/val/test folder of such folders."""

from __future__ import annotations

from pathlib import Path

from nbt.data.image_files import (
    OUTPUT_FOLDER,
    LabelledFile,
    LabelledFiles,
    PassedOver,
    describe_passed_over,
    has_image,
    scan_files,
    subfolders,
)
from nbt.data.layout import Layout
from nbt.data.readers.folder_layout import find_layout, image_folders, name_splits, or_table
from nbt.errors import UsageError

LOOSE = "outside the class folders"
BESIDE_SPLITS = "in a folder beside the train, validation and test folders"
EMPTY = "folder without images"


def check_image_folder(folder: Path) -> Layout:
    """Checks that a folder can be a dataset, without opening images, and returns how it is arranged.

    Raises:
        UsageError: The folder has no images, no class folders or one class only, or its arrangement is ambiguous.
    """
    layout = find_layout(folder)
    class_parent = next(iter(layout.parts.values()))
    classes = image_folders(class_parent)
    if not classes:
        raise UsageError(f"{_explain_no_images(class_parent)}{or_table(folder)}")
    if len(classes) == 1:
        raise UsageError(
            f"{class_parent} has one class only ({classes[0].name}); expected two or more class folders"
            f"{or_table(folder)}"
        )
    return layout


def read_image_folder(folder: Path) -> tuple[LabelledFiles, Layout]:
    """Lists the images of a folder of class folders, or of a train/val/test folder of such.

    Images in subfolders of a class folder belong to the class.

    Returns:
        The files, and how the folder is arranged.

    Raises:
        UsageError: The folder fails `check_image_folder`.
    """
    layout = check_image_folder(folder)
    files = LabelledFiles([], [])
    for split, part in layout.parts.items():
        _pass_over_beside(folder, part, layout, files)
        _read_classes(part, split, layout.split_inside_class, files)
    return LabelledFiles(files.images, list(dict.fromkeys(files.passed_over))), layout


def _read_classes(parent: Path, split: str, split_inside_class: bool, files: LabelledFiles) -> None:
    """Adds the files of the class folders in `parent`, and those beside them, to `files`."""
    for child in subfolders(parent):
        if split_inside_class:
            for part, inner_split in name_splits(image_folders(child)).items():
                _read_class(part, child.name, inner_split, files)
            files.passed_over.extend(_loose_files(child))
        else:
            _read_class(child, child.name, split, files)
    files.passed_over.extend(_loose_files(parent))


def _read_class(folder: Path, label: str, split: str, files: LabelledFiles) -> None:
    found = list(scan_files(folder))
    images = [LabelledFile(file, label, split) for file in found if isinstance(file, Path)]
    passed_over = [file for file in found if isinstance(file, PassedOver)]
    files.images.extend(images)
    files.passed_over.extend(passed_over)
    if not images and not any(file.reason == OUTPUT_FOLDER for file in passed_over):
        files.passed_over.append(PassedOver(folder, EMPTY))


def _pass_over_beside(folder: Path, part: Path, layout: Layout, files: LabelledFiles) -> None:
    """Adds the files of the folders between `folder` and the class folders of a part to those that are passed over."""
    parts = layout.parts.values()
    for parent in part.relative_to(folder).parents:
        files.passed_over.extend(_loose_files(folder / parent))
        for child in subfolders(folder / parent):
            if not any(part.is_relative_to(child) for part in parts):
                found = list(scan_files(child)) or [PassedOver(child, EMPTY)]
                files.passed_over.extend(
                    file if isinstance(file, PassedOver) else PassedOver(file, BESIDE_SPLITS) for file in found
                )


def _loose_files(folder: Path) -> list[PassedOver]:
    found = scan_files(folder, recursive=False)
    return [file if isinstance(file, PassedOver) else PassedOver(file, LOOSE) for file in found]


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
