"""Decodes image files of any format and colour mode to square RGB images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]

# The filter of torchvision's presets, with which the pretrained weights were evaluated.
_RESAMPLING = Image.Resampling.BILINEAR

_EXIF_ORIENTATION_TAG = 0x0112
_EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# The mean of ImageNet: borders are close to 0 after the normalisation, like the padding of convolutions.
_BORDER = (124, 116, 104)


class FileFacts(NamedTuple):
    """Facts about an image as it is stored in its file, before a rotation by its EXIF orientation.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        mode: Pillow's mode, such as "RGB" or "I;16".
    """

    width: int
    height: int
    mode: str


class DecodedImage(NamedTuple):
    """A square RGB image, uint8 (size, size, 3), and the facts about its file."""

    pixels: Pixels
    facts: FileFacts


def decode_image(path: Path, size: int, resize: str = "crop") -> DecodedImage:
    """Decodes an image file to an upright square RGB image.

    Of a multi-frame file, the first frame is used. Transparent pixels become white. 16-bit values are scaled, not
    clipped.

    Args:
        path: The image file.
        size: Height and width of the result in pixels.
        resize: How the image becomes a square, see `RESIZE`.

    Raises:
        Exception: Any exception that Pillow raises for a damaged, truncated or unsupported file.
    """
    with Image.open(path) as image:
        facts = FileFacts(*image.size, image.mode)
        # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size; both sides stay at least `size` pixels long.
        image.draft(None, (size, size))
        image.load()
        # Read after load(), which itself transposes TIFF images and removes the tag.
        transpose = _EXIF_TRANSPOSES.get(_orientation(image))
        square = RESIZE[resize](_to_rgb(image), size)
    return DecodedImage(np.asarray(square.transpose(transpose) if transpose is not None else square), facts)


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


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata does not make the pixels unreadable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: npt.NDArray[np.generic]) -> Pixels:
    """Scales grey values of a wider type to 0 ... 255.

    The input range is 0 ... 1 (floats), 0 ... 255 or 0 ... 65535.
    """
    numbers = np.nan_to_num(values.astype(np.float64))
    if values.dtype.kind == "f" and numbers.max(initial=0.0) <= 1.0:
        numbers = numbers * 255.0
    elif values.dtype.itemsize == 2 or numbers.max(initial=0.0) > 255.0:
        numbers = numbers / 257.0
    return np.rint(numbers).clip(0, 255).astype(np.uint8)
