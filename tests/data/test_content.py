"""Tests of the hashes of image files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from nbt.data.content import content_hash
from nbt.data.image_store import decode_images


def save(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.bmp" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 40 * number, dtype=np.uint8)).save(path)
    return paths


def repaint(path: Path, value: int) -> None:
    """Changes the pixels of a file, but neither its name nor its size nor its times."""
    before = path.stat()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_changed_pixels_of_equal_name_size_and_time_are_decoded_again(tmp_path: Path) -> None:
    paths = save(tmp_path / "images")
    decode_images(paths, 8)
    repaint(paths[2], 255)
    assert decode_images(paths, 8)[0].array[2].min() == 255


def test_a_moved_folder_keeps_its_hash(tmp_path: Path) -> None:
    paths = save(tmp_path / "images")
    before = content_hash(paths)
    moved = Path(shutil.copytree(tmp_path / "images", tmp_path / "elsewhere"))
    assert content_hash([moved / path.name for path in paths]) == before
    assert content_hash(paths[::-1]) != before


def test_a_missing_file_has_a_hash(tmp_path: Path) -> None:
    paths = save(tmp_path / "images")
    before = content_hash(paths)
    paths[1].unlink()
    assert content_hash(paths) != before
