"""Tests of NBT102, NBT103 and NBT104 on folders with planted copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nbt.checks import CheckResult
from nbt.task.data import TaskData, decode_selection, select_images
from nbt.task.options import check_task_options
from tests.data.near_copies.test_search import textures

CODES = ("NBT102", "NBT103", "NBT104")


def save(folder: Path) -> Path:
    """Saves 8 training and 4 test images of each of two classes, all different."""
    images = iter(textures(24))
    for part, n in (("train", 8), ("test", 4)):
        for name in "ab":
            for number in range(n):
                path = folder / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                next(images).save(path)
    return folder


def load(folder: Path) -> TaskData:
    options = check_task_options(folder, image_size=64)
    return decode_selection(select_images(options, None), options, 64, None)


def check(folder: Path) -> dict[str, CheckResult]:
    return {result.code: result for result in load(folder).checks if result.code in CODES}


def copy(folder: Path, source: str, target: str, quality: int = 60) -> None:
    buffer = io.BytesIO()
    Image.open(folder / source).save(buffer, "JPEG", quality=quality)
    (folder / target).write_bytes(buffer.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return save(tmp_path / "data")


def test_different_images_pass(folder: Path) -> None:
    assert {result.state for result in check(folder).values()} == {"passed"}


def test_a_test_image_copied_from_training_is_an_error(folder: Path) -> None:
    copy(folder, "train/a/1.png", "test/a/copy.jpg")
    result = check(folder)["NBT102"]
    assert (result.state, result.severity, result.count) == ("failed", "error", 1)
    assert "1 of 9 images (11.1 %)" in result.message
    assert "train/a/1.png" in result.examples[0] and "test/a/copy.jpg (test)" in result.examples[0]
    data = load(folder)
    assert [data.listing.items[i].name for i in data.copied_test] == ["copy.jpg"]


def test_a_copy_in_the_validation_part_says_nothing_of_the_test_metric(folder: Path) -> None:
    for name, image in zip("ab", list(textures(26))[24:], strict=True):
        (folder / "val" / name).mkdir(parents=True)
        image.save(folder / "val" / name / "0.png")
    copy(folder, "train/a/1.png", "val/a/copy.jpg")
    result = check(folder)["NBT102"]
    assert (result.state, result.severity, result.count) == ("failed", "warning", 1)
    assert "no test image is among them, but the validation metric" in result.message


def test_a_mirrored_copy_is_information(folder: Path) -> None:
    ImageOps.mirror(Image.open(folder / "train/a/1.png")).save(folder / "test/a/mirrored.png")
    result = check(folder)["NBT102"]
    assert (result.state, result.severity, result.count) == ("failed", "info", 1)


def test_a_copy_under_another_label_is_found(folder: Path) -> None:
    copy(folder, "test/a/1.png", "test/b/copy.jpg")
    results = check(folder)
    assert (results["NBT103"].state, results["NBT103"].severity) == ("failed", "warning")
    assert "test/a/1.png (a)" in results["NBT103"].examples[0]
    assert results["NBT102"].state == "passed"


def test_a_repeated_image_within_a_part_is_information(folder: Path) -> None:
    copy(folder, "test/a/1.png", "test/a/copy.jpg")
    result = check(folder)["NBT104"]
    assert (result.state, result.severity, result.count) == ("failed", "info", 1)
    assert result.message == "1 near copy (or frame of one scene) within a part: 1 in test."
    assert result.advice.startswith("Keep one of each group of near copies, or a few frames of a scene")
    assert np.all([name in result.examples[0] for name in ("test/a/1.png", "test/a/copy.jpg")])


def duplicate(folder: Path, source: str, target: str) -> None:
    """Copies a file, so that the pixels are equal."""
    (folder / target).write_bytes((folder / source).read_bytes())


def test_identical_images_are_told_from_near_copies(folder: Path) -> None:
    duplicate(folder, "test/a/1.png", "test/b/same.png")
    copy(folder, "test/a/2.png", "test/b/near.jpg")
    duplicate(folder, "train/a/3.png", "test/a/same.png")
    copy(folder, "train/a/4.png", "test/a/near.jpg")
    results = check(folder)
    assert results["NBT103"].message == (
        "1 identical copy and 1 near copy (or frame of one scene) under different labels."
    )
    assert results["NBT103"].advice.endswith("frames of one scene may show different classes.")
    assert sorted(" = " in example for example in results["NBT103"].examples) == [False, True]
    assert results["NBT102"].message.startswith(
        "1 identical copy and 1 near copy (or frame of one scene) in two parts; 2 of 12 images (16.7 %) of the test"
    )
    assert results["NBT102"].advice == "Keep all copies of an image, and all frames of a scene, in one part."


def test_the_words_for_identical_images_do_not_speak_of_scenes(folder: Path) -> None:
    for number in range(2):
        duplicate(folder, "test/a/1.png", f"test/a/same{number}.png")
        duplicate(folder, "test/a/1.png", f"test/b/same{number}.png")
    duplicate(folder, "train/b/1.png", "test/b/same.png")
    results = check(folder)
    assert results["NBT103"].message == "1 identical copy under different labels."
    assert results["NBT104"].message == "4 identical copies within a part: 4 in test."
    assert results["NBT102"].advice == "Keep all copies of an image in one part."
    assert not any("scene" in result.message + result.advice for result in results.values())
