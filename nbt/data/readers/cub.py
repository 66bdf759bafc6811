"""Downloads CUB-200-2011 and reads its official layout (Wah et al. 2011, Caltech CNS-TR-2011-001)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbt.data.image_files import LabelledFile
from nbt.errors import NbtError, UsageError
from nbt.paths import cache_folder

if TYPE_CHECKING:
    from nbt.progress import Progress

FOLDER = "CUB_200_2011"
URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
MD5 = "97eceeb196236b17998738112f37df78"

_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def is_cub(folder: Path) -> bool:
    """Returns whether a folder has the official layout: the four tables and images/."""
    return (folder / "images").is_dir() and all((folder / name).is_file() for name in _TABLES)


def find_cub(data_dir: Path) -> Path:
    """Returns the folder with the official layout: `data_dir` itself or CUB_200_2011 inside it.

    Raises:
        UsageError: Neither has the layout; the message names the missing files.
    """
    for folder in (data_dir, data_dir / FOLDER):
        if is_cub(folder):
            return folder
    missing = [name for name in (*_TABLES, "images") if not (data_dir / name).exists()]
    raise UsageError(
        f"--data-dir {data_dir}: not the official layout of CUB-200-2011, nor is {FOLDER}/ in it "
        f"(missing: {', '.join(missing)})"
    )


def fetch_cub(progress: Progress | None = None) -> Path:
    """Returns the folder of the downloaded dataset; the first call downloads 1.1 GB.

    Raises:
        NbtError: The download fails; the message explains how to use an existing copy.
    """
    from nbt.data.download import fetch_archive

    folder = cache_folder("datasets", "cub")
    dataset_folder = folder / FOLDER
    if is_cub(dataset_folder):
        return dataset_folder
    try:
        return fetch_archive(URL, MD5, folder, FOLDER, progress=progress)
    except NbtError as error:
        raise NbtError(f"{error}; to use an existing copy, give its folder: --data-dir {FOLDER}") from error


def read_cub(folder: Path) -> tuple[list[str], list[LabelledFile]]:
    """Reads the official tables.

    Args:
        folder: A folder for which `is_cub` holds.

    Returns:
        The names of the classes that have images, in the order of their ids, and the images with the official splits
        "train" and "test".

    Raises:
        UsageError: A table is damaged; the message names the file and the line or id.
    """
    names = _read_table(folder / "classes.txt")
    labels = _read_table(folder / "image_class_labels.txt")
    split = _read_table(folder / "train_test_split.txt")
    rows = []
    for image_id, name in _read_table(folder / "images.txt").items():
        if image_id not in labels or image_id not in split:
            table = "image_class_labels.txt" if image_id not in labels else "train_test_split.txt"
            raise UsageError(f"{folder / table}: no line for image {image_id} of images.txt")
        if labels[image_id] not in names:
            raise UsageError(f"{folder / 'classes.txt'}: no line for class {labels[image_id]} of image {image_id}")
        if split[image_id] not in ("0", "1"):
            raise UsageError(
                f"{folder / 'train_test_split.txt'}: image {image_id} has {split[image_id]!r}, expected 0 or 1"
            )
        split_name = "train" if split[image_id] == "1" else "test"
        rows.append(LabelledFile(folder / "images" / name, names[labels[image_id]], split_name))
    used = {row.label for row in rows}
    return [name for name in names.values() if name in used], rows


def _read_table(path: Path) -> dict[str, str]:
    """Returns a table of "id value" lines."""
    table: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not value or key in table:
            problem = "the id is given twice" if value else "expected an id, a space and a value"
            raise UsageError(f"{path}, line {number}: {problem}, got {line.strip()!r}")
        table[key] = value
    return table
