"""Decodes image files of any format and colour mode to square RGB images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nbt.data.image_reading import NO_RANGES, read_image
from nbt.data.value_range import ValueRanges, ValueStatistics

Pixels = npt.NDArray[np.uint8]

# The filter of torchvision's presets, with which the pretrained weights were evaluated.
_RESAMPLING = Image.Resampling.BILINEAR

# The mean of ImageNet: borders are close to 0 after the normalisation, like the padding of convolutions.
_BORDER = (124, 116, 104)


class FileFacts(NamedTuple):
    """Facts about an image as it is stored in its file, before a rotation by its EXIF orientation.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        mode: Pillow's mode, such as "RGB" or "I;16", or the type of the values of a file that Pillow does not read.
        kind: Kind of values of more than 8 bits, see `nbt.data.value_range.ValueRanges`; else "".
        low: Least finite value, for such values.
        high: Greatest finite value, for such values.
        not_finite: Number of values that are not finite.
        bits: Numbers of integers by their bits, see `nbt.data.value_range.ValueStatistics`.
    """

    width: int
    height: int
    mode: str
    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    not_finite: int = 0
    bits: tuple[int, ...] = ()

    @property
    def values(self) -> ValueStatistics:
        """Statistics of the values."""
        return ValueStatistics(self.kind, self.low, self.high, self.not_finite, self.bits)


class DecodedImage(NamedTuple):
    """A square RGB image, uint8 (size, size, 3), and the facts about its file."""

    pixels: Pixels
    facts: FileFacts


def decode_image(path: Path, size: int, resize: str = "crop", ranges: ValueRanges = NO_RANGES) -> DecodedImage:
    """Decodes an image file to an upright square RGB image; see `read_image`.

    Args:
        path: The image file.
        size: Height and width of the result in pixels.
        resize: How the image becomes a square, see `RESIZE`.
        ranges: Ranges of values of more than 8 bits.

    Raises:
        Exception: As in `read_image`.
    """
    image = read_image(path, size, ranges)
    square = RESIZE[resize](image.rgb, size)
    upright = square if image.transpose is None else square.transpose(image.transpose)
    kind, low, high, not_finite, bits = image.statistics
    return DecodedImage(np.asarray(upright), FileFacts(*image.size, image.mode, kind, low, high, not_finite, bits))


def decode_file(path: Path, size: int, resize: str = "crop") -> Pixels:
    """Returns the pixels of `decode_image`, uint8 (size, size, 3)."""
    return decode_image(path, size, resize).pixels


def resize_pixels(pixels: Pixels, size: int, resize: str = "crop") -> Pixels:
    """Resizes an RGB image, uint8 (H, W, 3), to a square, uint8 (size, size, 3)."""
    if pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels)
    return np.asarray(RESIZE[resize](Image.fromarray(pixels), size))


def _resize_and_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Scales the shorter side to `size` and crops the centre, in one step."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), _RESAMPLING, box=(left, top, left + side, top + side))


def _resize_and_pad(image: Image.Image, size: int) -> Image.Image:
    """Scales the longer side to `size` and adds equal borders to the shorter one."""
    return ImageOps.pad(image, (size, size), _RESAMPLING, color=_BORDER)


def _squash(image: Image.Image, size: int) -> Image.Image:
    """Scales each side to `size`."""
    return image.resize((size, size), _RESAMPLING)


RESIZE: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop": _resize_and_center_crop,
    "pad": _resize_and_pad,
    "squash": _squash,
}
"""Functions by the value of the option `resize`, which make an image a square of a size."""
