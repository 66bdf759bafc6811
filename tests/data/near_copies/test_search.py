"""Tests of the search for near copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nbt.data.decoding import resize_pixels
from nbt.data.near_copies import comparison
from nbt.data.near_copies.cache import cached_near_copies
from nbt.data.near_copies.search import find_near_copies


def textures(n: int, contrast: float = 40.0, size: int = 160, seed: int = 0) -> list[Image.Image]:
    """Returns blurred random textures on one common ramp: as different from each other as parts of one surface."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, size)[None, :, None]
    images = []
    for _ in range(n):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        smooth = np.asarray(noise.filter(ImageFilter.GaussianBlur(4)), dtype=np.float64)
        smooth = (smooth - smooth.mean()) / smooth.std() * contrast
        images.append(Image.fromarray((ramp + smooth).clip(0, 255).astype(np.uint8)))
    return images


def squares(images: list[Image.Image]) -> np.ndarray:
    return np.stack([resize_pixels(np.asarray(image), 96) for image in images])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "jpeg": lambda image: jpeg(image, 50),
    "half": lambda image: image.resize((80, 80)),
    "crop": lambda image: image.crop((8, 8, 152, 152)),
    "crop at a side": lambda image: image.crop((8, 0, 160, 152)),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("contrast", [40.0, 12.0])
def test_every_copy_and_nothing_else_is_found(kind: str, contrast: float) -> None:
    """Recall and false alarms on textures that share most of their appearance."""
    originals = textures(40, contrast)
    images = squares([*originals, *(COPIES[kind](image) for image in originals[:8])])
    groups = [group.tolist() for group in find_near_copies(images).groups]
    assert groups == [[i, 40 + i] for i in range(8)]


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("n", [1, 3, 6, 11, 27, 28])
def test_copies_among_few_images_are_found(kind: str, n: int) -> None:
    """Few images have no principal components to tell them apart, and yet every copy and nothing else is found."""
    originals = textures(n)
    images = squares([*originals, *(COPIES[kind](image) for image in originals[:4])])
    groups = [group.tolist() for group in find_near_copies(images).groups]
    assert groups == [[i, n + i] for i in range(min(n, 4))]


def test_equal_images_are_one_group() -> None:
    """Equal pixels are copies, even without any contrast; other images without contrast are not."""
    blank = np.full((3, 32, 32, 3), 100, dtype=np.uint8)
    nearly_blank = blank[:1] + 1
    groups = find_near_copies(np.concatenate([blank, nearly_blank, squares(textures(5))[:, :32, :32]])).groups
    assert [group.tolist() for group in groups] == [[0, 1, 2]]


def test_mirrored_images_are_no_copies() -> None:
    """A mirrored image is found by its own search only."""
    originals = squares(textures(20))
    images = np.concatenate([originals, originals[:1, :, ::-1]])
    found = find_near_copies(images)
    assert found.groups == ()
    assert found.mirrored.tolist() == [[0, 20]]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images(n: int) -> None:
    """A search of a very small set ends."""
    found = find_near_copies(squares(textures(2))[:n])
    assert found.groups == ()
    assert found.mirrored.shape == (0, 2)


def test_the_cache_follows_the_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Equal images are searched once, changed ones again."""
    monkeypatch.setenv("NBT_CACHE", str(tmp_path))
    images = squares(textures(6))
    assert cached_near_copies(images).groups == ()
    images[5] = images[0]
    assert [group.tolist() for group in cached_near_copies(images).groups] == [[0, 5]]
    monkeypatch.setattr("nbt.data.near_copies.cache.find_near_copies", lambda images: pytest.fail("searched again"))
    assert [group.tolist() for group in cached_near_copies(images).groups] == [[0, 5]]


def test_of_very_many_similar_images_the_most_similar_ones_are_compared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path))
    monkeypatch.setattr(comparison, "MIN_COMPARED", 0)
    scene, *details = (np.asarray(image, dtype=np.float64) for image in textures(31))
    mixed = [(0.75 * scene + 0.25 * detail).astype(np.uint8) for detail in details]
    originals = [Image.fromarray(image) for image in mixed]
    images = squares([*originals, *(jpeg(image, 60) for image in originals[:5])])
    for _ in range(2):
        caplog.clear()
        found = cached_near_copies(images)
        assert found.not_compared > 0
        assert [group.tolist() for group in found.groups] == [[i, 30 + i] for i in range(5)]
        assert [record.args for record in caplog.records] == [(f"{found.not_compared:,}",)]
