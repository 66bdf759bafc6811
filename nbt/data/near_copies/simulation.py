"""Simulates what recompression, half the size and a crop change in an image."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from nbt.data.near_copies.thumbnails import SIDE, Floats, sample_crops, shrink, thumbnails

_QUALITY, _QUALITY_OF_HALF = 50, 70
# Left, upper, right and lower side of a crop, in shares of the image.
_BOX = (0.013, 0.037, 0.963, 0.987)


def simulate_changes(images: npt.NDArray[np.uint8]) -> Floats:
    """Returns the changes of the thumbnails by each of the three, (3, n, 3, SIDE, SIDE), in units of grey levels.

    Args:
        images: RGB images, uint8 (n, H, H, 3).
    """
    originals = thumbnails(images)
    versions = np.stack([_versions(image) for image in images], axis=1)
    left, upper, right, lower = 2 * np.array(_BOX) - 1
    scale_x, scale_y = (right - left) / 2, (lower - upper) / 2
    whole = [1 / scale_x, 1 / scale_y, -(left + right) / 2 / scale_x, -(upper + lower) / 2 / scale_y]
    crops = np.tile(np.array(whole, dtype=np.float32), (len(images), 1))
    cropped, inside = sample_through(versions[2], crops)
    changes = [thumbnails(versions[0]) - originals, thumbnails(versions[1]) - originals]
    return np.stack([*changes, (cropped - originals) * inside[:, None]])


def sample_through(images: npt.NDArray[np.uint8], crops: Floats) -> tuple[Floats, Floats]:
    """Returns luma and chroma of images through crops, and which pixels lie inside the images, as `sample_crops`.

    Twice as many pixels are sampled and averaged: otherwise a thin line would change by its place between two pixels.

    Args:
        images: RGB images, uint8 (n, H, H, 3).
        crops: The crop of each image, (n, 4).
    """
    planes = thumbnails(images, min(images.shape[1], 2 * SIDE))
    sampled, inside = sample_crops(planes, crops, 2 * SIDE)
    return shrink(sampled, SIDE), (shrink(inside, SIDE) == 1).astype(np.float32)


def _versions(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns the image compressed, at half its size and enlarged again, and cropped, uint8 (3, H, H, 3)."""
    picture = Image.fromarray(image)
    size = picture.width
    half = picture.resize((max(1, size // 2),) * 2, Image.Resampling.BICUBIC)
    enlarged = _compress(half, _QUALITY_OF_HALF).resize((size, size), Image.Resampling.BILINEAR)
    left, upper, right, lower = (size * side for side in _BOX)
    cropped = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, upper, right, lower))
    return np.stack([np.asarray(version) for version in (_compress(picture, _QUALITY), enlarged, cropped)])


def _compress(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
