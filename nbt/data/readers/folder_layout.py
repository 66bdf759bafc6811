"""Finds out how a folder of images is arranged: class folders, or folders of splits that hold class folders.

The arrangement is found by names and by structure together, because classes may be called train or test as well, and
splits have many names. Where both readings are possible, `AmbiguousLayoutError` says how the folders are to be named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from nbt.data.image_files import first_image, has_image, subfolders
from nbt.data.layout import Layout
from nbt.data.readers.split_names import is_neutral_name, is_unlabelled_name, other_words, split_of_name
from nbt.errors import UsageError

_MAX_NAMES_SHOWN = 3
_REMEDY = (
    "put the class folders into train/, val/ and test/ if these are splits, or give the folders other names if they "
    "are classes"
)


class AmbiguousLayoutError(UsageError):
    """The folders may be splits or classes."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}; {_REMEDY}{or_table(folder)}")


def find_layout(folder: Path) -> Layout:
    """Finds out how a folder of images is arranged, without opening images.

    A folder that holds nothing but one other folder of images is entered, as in data/train/cats.

    Raises:
        AmbiguousLayoutError: The arrangement is ambiguous.
    """
    root = folder
    while True:
        children = image_folders(root)
        parts = _find_parts(root, children)
        if parts:
            return Layout(folder, parts)
        if _are_splits_inside_classes(children):
            return Layout(folder, {"": root}, split_inside_class=True)
        if len(children) != 1 or _has_loose_image(root) or not _is_container(children[0]):
            return Layout(folder, {"": root})
        root = children[0]


def image_folders(folder: Path) -> list[Path]:
    """Returns the folders inside `folder` with images in them or below them, sorted by name."""
    return [child for child in subfolders(folder) if has_image(child)]


def or_table(folder: Path) -> str:
    """Returns the end of a message: the tables beside the images, which may hold the labels; "" without any."""
    with os.scandir(folder) as entries:
        tables = sorted(entry.name for entry in entries if entry.name.lower().endswith((".csv", ".tsv")))
    shown = " or ".join(tables[:_MAX_NAMES_SHOWN])
    return f"; if a table has the labels, give its path as the dataset ({shown})" if tables else ""


def _is_container(folder: Path) -> bool:
    """Returns whether a folder holds folders of images, and images of its own at most beside folders of splits."""
    inner = image_folders(folder)
    return bool(inner) and (not _has_loose_image(folder) or bool(_find_parts(folder, inner)))


def _find_parts(root: Path, children: Sequence[Path]) -> dict[str, Path]:
    """Returns the folders of class folders by split, of those that are folders of splits; empty where there are none.

    Raises:
        AmbiguousLayoutError: The folders may be splits or classes.
    """
    named = name_splits(children)
    holders = {child: holder for child in named if (holder := _class_folder_parent(child)) is not None}
    splits = {named[child] for child in holders}
    if "train" in splits and len(splits) > 1:
        _check_one_folder_per_split(root, holders, named)
        parts = {named[child]: holder for child, holder in holders.items()}
        _check_shared_classes(root, parts)
        return dict(sorted(parts.items(), key=lambda item: ("train", "val", "test").index(item[0])))
    if "train" in splits:
        return _find_training_part(root, children, named, holders)
    if len(splits) > 1 and _share_classes(list(holders.values())):
        names = ", ".join(f"{child.name}/" for child in holders)
        raise AmbiguousLayoutError(root, f"{names} hold the same class folders, but none of them is named train")
    if len(named) == len(children) and not holders and _are_unmistakable(named):
        names = " and ".join(f"{child.name}/" for child in children)
        raise AmbiguousLayoutError(root, f"{names} look like splits, but have no class folders in them")
    return {}


def name_splits(children: Sequence[Path]) -> dict[Path, str]:
    """Returns the split that each folder is named after; an evaluation folder is the part that has no other folder."""
    named = {child: split for child in children if (split := split_of_name(child.name))}
    taken = set(named.values())
    evaluation = "test" if "test" not in taken else "val"
    return {child: evaluation if split == "evaluation" else split for child, split in named.items()}


def _class_folder_parent(part: Path) -> Path | None:
    """Returns the folder that holds the class folders of a split: itself, or the only folder in it; None without any.

    The folder in it must be named like the split or neutrally, as in seg_train/seg_train/street or train/images/cat.
    """
    inner = image_folders(part)
    if len(inner) == 1 and not _has_loose_image(part):
        name = inner[0].name
        same = split_of_name(name) in ("", split_of_name(part.name)) and other_words(name) in (
            (),
            other_words(part.name),
        )
        if same and image_folders(inner[0]):
            return inner[0]
    return part if inner else None


def _find_training_part(
    root: Path, children: Sequence[Path], named: dict[Path, str], holders: dict[Path, Path]
) -> dict[str, Path]:
    """Returns the training part where no other split has class folders; empty where the folder is a class.

    The folders beside it may be a split or other images without class folders. Otherwise it is a class with folders in
    it, such as trains beside buses.
    """
    if len(holders) > 1:
        if _share_classes(list(holders.values())):
            _check_one_folder_per_split(root, holders, named)
        return {}
    [(train, holder)] = holders.items()
    others = [child for child in children if child != train]
    has_split = any(child in named for child in others)
    return {"train": holder} if has_split or all(is_unlabelled_name(child.name) for child in others) else {}


def _check_one_folder_per_split(root: Path, holders: dict[Path, Path], named: dict[Path, str]) -> None:
    for one, other in combinations(holders, 2):
        if named[one] == named[other]:
            reason = f"{one.name}/ and {other.name}/ are both {named[one]}; keep one of them"
            raise AmbiguousLayoutError(root, reason)


def _check_shared_classes(root: Path, parts: dict[str, Path]) -> None:
    """Checks that each part shares a class with the training part, as those of other folders do not."""
    for split, part in parts.items():
        if not _share_classes([parts["train"], part]):
            reason = f"{parts['train'].name}/ and {part.name}/ look like train and {split}, but have no class in common"
            raise AmbiguousLayoutError(root, reason)


def _share_classes(parents: Sequence[Path]) -> bool:
    """Returns whether two of the folders hold class folders of the same name."""
    names = [{child.name for child in image_folders(parent)} for parent in parents]
    return any(one & other for one, other in combinations(names, 2))


def _are_unmistakable(named: dict[Path, str]) -> bool:
    """Returns whether folders are named train and another split, and nothing else."""
    words = {other_words(child.name) for child in named}
    return "train" in named.values() and len(set(named.values())) > 1 and len(words) == 1


def _are_splits_inside_classes(children: Sequence[Path]) -> bool:
    """Returns whether each class folder holds folders of splits and no other images, as in cats/train."""
    if len(children) < 2:
        return False
    splits = set()
    for child in children:
        inner = image_folders(child)
        named = name_splits(inner)
        if not inner or len(named) < len(inner) or len(set(named.values())) < len(inner) or _has_loose_image(child):
            return False
        if any(not is_neutral_name(part.name) for part in inner):
            return False
        splits |= set(named.values())
    return "train" in splits and len(splits) > 1


def _has_loose_image(folder: Path) -> bool:
    return first_image(folder, recursive=False) is not None
