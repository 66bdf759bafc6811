"""Images to be classified: files, folders, arrays, tensors and Pillow images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nbt.errors import UsageError
from nbt.inference.images import find_images

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    for name in ("b.png", "a.png", "inner/c.png"):
        Image.fromarray(PIXELS[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def test_a_folder_is_replaced_by_its_images(folder: Path) -> None:
    source = find_images([folder / "b.png", folder])
    names = [str(folder / name) for name in ("b.png", "a.png", "b.png", "inner/c.png")]
    assert source.names == names
    assert [(file.path.name, file.reason) for file in source.passed_over] == [("notes.txt", "not an image")]
    assert find_images(source) is source


def test_subfolders_are_left_out_on_request(folder: Path) -> None:
    assert [Path(name).name for name in find_images(str(folder), recursive=False).names] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        list(PIXELS),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255,
        [torch.from_numpy(image).permute(2, 0, 1) for image in PIXELS],
        [Image.fromarray(image) for image in PIXELS],
        (Image.fromarray(image) for image in PIXELS),
    ],
    ids=["array", "arrays", "tensor", "floats", "tensors", "Pillow", "iterator"],
)
def test_images_in_memory_are_read_alike(images: object) -> None:
    source = find_images(images)
    assert source.names == ["image 0", "image 1"]
    for item, expected in zip(source.items, PIXELS, strict=True):
        np.testing.assert_array_equal(item, expected)


@pytest.mark.parametrize("image", [PIXELS[0], torch.from_numpy(PIXELS[0]).permute(2, 0, 1), Image.fromarray(PIXELS[0])])
def test_a_single_image_needs_no_sequence(image: object) -> None:
    [item] = find_images(image).items
    np.testing.assert_array_equal(item, PIXELS[0])


def test_a_pillow_image_is_turned_upright_and_loses_its_transparency() -> None:
    image = Image.new("RGBA", (2, 3), (10, 20, 30, 0))
    image.getexif()[0x0112] = 6
    [item] = find_images(image).items
    assert item.shape == (2, 3, 3)
    assert (item == 255).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.png", r"nowhere\.png: no such file or folder"),
        (PIXELS.astype(np.float32), "array of float32"),
        (PIXELS[..., 0], "array of uint8"),
        (torch.zeros(5, 4, 3), "tensor of shape"),
        (torch.full((3, 4, 4), -1.5), "outside 0 ... 1"),
        (Image.new("I;16", (2, 2)), "I;16"),
        (3, "images of type int"),
        (["a.png", 3], "images of type str"),
    ],
)
def test_other_values_are_refused(images: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_images(images)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("none")
    with pytest.raises(UsageError, match=r"contains no images; found 1 \.txt"):
        find_images(tmp_path)
