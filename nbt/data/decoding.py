"""One image file, whatever its format and colours, to one square of RGB pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

# The same filter as in torchvision's presets, which pretrained weights were evaluated with.
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


def decode_file(path: Path, size: int) -> Pixels:
    """Returns an image file as an upright square of RGB, uint8 (size, size, 3).

    Of several frames it is the first. Transparency shows white. 16-bit values are scaled, not clipped.

    Args:
        path: The file.
        size: Height and width in pixels.

    Raises:
        Exception: Anything Pillow raises of a file that is damaged, cut off or none of its formats.
    """
    with Image.open(path) as image:
        # JPEG decodes at 1/2, 1/4 or 1/8 directly, as long as both sides stay as large as they are needed.
        image.draft(None, (size, size))
        image.load()
        # Only now: for TIFF, load itself has turned the image and taken the tag away.
        turn = _EXIF_TRANSPOSES.get(_orientation(image))
        square = _resize_and_center_crop(_to_rgb(image), size)
    return np.asarray(square.transpose(turn) if turn is not None else square)


def resize_pixels(pixels: Pixels, size: int) -> Pixels:
    """Returns RGB pixels, uint8 (H, W, 3), as a square of another size, uint8 (size, size, 3)."""
    if pixels.shape[:2] == (size, size):
        return np.ascontiguousarray(pixels)
    return np.asarray(_resize_and_center_crop(Image.fromarray(pixels), size))


def _resize_and_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Scales the shorter side to `size` and cuts out the middle, in one step."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), _RESAMPLING, box=(left, top, left + side, top + side))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata do not make the pixels unreadable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: npt.NDArray[np.generic]) -> Pixels:
    """Scales grey values of a wider type: 0 ... 1 if they are fractions, 0 ... 255, or 0 ... 65535."""
    numbers = np.nan_to_num(values.astype(np.float64))
    if values.dtype.kind == "f" and numbers.max(initial=0.0) <= 1.0:
        numbers = numbers * 255.0
    elif values.dtype.itemsize == 2 or numbers.max(initial=0.0) > 255.0:
        numbers = numbers / 257.0
    return np.rint(numbers).clip(0, 255).astype(np.uint8)
