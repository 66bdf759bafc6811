"""Reads image files of any format and colour mode as RGB."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from nbt.data.formats import NEEDS_HEIF, heif_is_installed, is_heif, readable_formats, reason_of_suffix
from nbt.data.value_range import (
    ValueRange,
    ValueRanges,
    ValueStatistics,
    count_bits,
    own_range,
    to_8_bit,
    value_statistics,
)

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""Largest number of pixels that are decoded; Pillow's limit against decompression bombs. JPEG counts as it is decoded,
at a fraction of its size."""

MAX_JPEG_PIXELS = 1_000_000_000
"""Largest number of pixels of a JPEG file, of which a progressive one takes 6 bytes each in memory."""

NEEDS_TIFFFILE = "a kind of TIFF that needs tifffile: pip install 'nbt-transfer[tiff]'"
UNKNOWN_FORMAT = "damaged, or not an image of a known format"

NO_RANGES: ValueRanges = MappingProxyType({})

_ORIENTATION_TAG = 0x0112
_NO_DATA_TAG = 42113
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class FileImage(NamedTuple):
    """The image in a file.

    Attributes:
        rgb: The image as it is stored, before it is turned upright.
        transpose: What turns it upright; None for nothing.
        mode: Pillow's mode of the file, such as "RGB" or "I;16".
        size: Width and height in the file, in pixels.
        statistics: Statistics of the values.
    """

    rgb: Image.Image
    transpose: Image.Transpose | None
    mode: str
    size: tuple[int, int]
    statistics: ValueStatistics


def read_image(path: Path, min_size: int, ranges: ValueRanges = NO_RANGES) -> FileImage:
    """Reads an image file as RGB.

    Of a file with several frames or pages, the first is read. Transparent pixels become white.

    Args:
        path: The image file.
        min_size: Number of pixels that both sides keep where the file is decoded at a fraction of its size.
        ranges: Ranges of values of more than 8 bits; an image of another kind is scaled by `own_range`.

    Raises:
        Exception: The file is missing, damaged, truncated, too large or of an unknown kind; Pillow raises errors of
            many types.
    """
    if reason := reason_of_suffix(path.suffix):
        raise ValueError(reason)
    try:
        image = _open(path)
    except UnidentifiedImageError as error:
        return _read_unidentified(path, ranges, error)
    with image:
        size, mode = image.size, image.mode
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size.
            image.draft(None, (min_size, min_size))
        _check_size(image)
        has_16_bit_colours = image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in image.tile)
        is_unsigned = image.mode == "I" and any("I;32N" in str(tile[3]) for tile in image.tile)
        image.load()
        # Read after load(), which itself transposes TIFF images and removes the tag.
        transpose = _TRANSPOSES.get(_orientation(image))
        if has_16_bit_colours:
            rgb, statistics, transpose = _convert_16_bit_colours(path, image, ranges)
        elif image.mode.startswith("I") or image.mode == "F":
            values = np.asarray(image)
            rgb, statistics = _convert_values(_mask(values.view(np.uint32) if is_unsigned else values, image), ranges)
        else:
            rgb, statistics = to_rgb(image), ValueStatistics()
    return FileImage(rgb, transpose, mode, size, statistics)


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        return Image.open(path, formats=readable_formats())
    except Image.DecompressionBombError:
        try:
            image = JpegImagePlugin.JpegImageFile(path)  # not checked, because it is decoded at a fraction
        except SyntaxError:
            raise ValueError(
                f"has more than {MAX_PIXELS / 1e6:.0f} million pixels; save it smaller, or as JPEG, which is decoded "
                "at a fraction"
            ) from None
        if image.size[0] * image.size[1] > MAX_JPEG_PIXELS:
            raise ValueError(f"has more than {MAX_JPEG_PIXELS / 1e6:.0f} million pixels; save it smaller") from None
        return image


def _check_size(image: Image.Image) -> None:
    """Checks the size at which an image is decoded; formats that `Image.open` did not check are JPEG only."""
    if image.size[0] * image.size[1] > MAX_PIXELS:
        raise ValueError(f"has more than {MAX_PIXELS / 1e6:.0f} million pixels even at a fraction; save it smaller")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata does not make the pixels unreadable
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image of 8-bit values as RGB; transparent pixels become white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image.convert("RGB")


def _mask(values: npt.NDArray[np.generic], image: Image.Image) -> npt.NDArray[np.generic]:
    """Returns the values with NaN where a GeoTIFF of floats has the value that marks missing data."""
    marker: object = getattr(image, "tag_v2", {}).get(_NO_DATA_TAG)
    if values.dtype.kind != "f" or marker is None:
        return values
    try:
        return np.where(values == np.float32(str(marker).strip("\0 ")), np.float32(np.nan), values)
    except ValueError:
        return values


def _convert_values(values: npt.NDArray[np.generic], ranges: ValueRanges) -> tuple[Image.Image, ValueStatistics]:
    """Returns the RGB image of values of more than 8 bits, (H, W) or (H, W, C) with 1 ... 4 channels."""
    statistics = value_statistics(values if values.ndim == 2 or values.shape[2] % 2 else values[..., :-1])
    value_range = ranges.get(statistics.kind) or own_range(statistics)
    pixels = to_8_bit(values, value_range)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        pixels[..., -1] = _scale_alpha(values[..., -1], value_range)
    return to_rgb(Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)), statistics


def _scale_alpha(alpha: npt.NDArray[np.generic], value_range: ValueRange) -> npt.NDArray[np.uint8]:
    """Scales the opacity, which may use more bits than the colours."""
    statistics = value_statistics(alpha)
    return to_8_bit(alpha, value_range if statistics.high <= value_range[1] else own_range(statistics))


def _convert_16_bit_colours(
    path: Path, image: Image.Image, ranges: ValueRanges
) -> tuple[Image.Image, ValueStatistics, Image.Transpose | None]:
    """Returns the RGB image of a file with 16 bits per colour, of which Pillow reads the upper 8, and what turns it.

    The upper 8 bits tell how many of the 16 are in use; all bits are read only where the range makes a difference.
    """
    upper = np.asarray(image)[..., :3]
    # The lower bits count as set.
    possible = upper.astype(np.uint16) * 256 + 255
    statistics = ValueStatistics("uint16", 0.0, float(possible.max()), bits=count_bits(possible))
    transpose = _TRANSPOSES.get(_orientation(image))
    value_range = ranges.get("uint16") or own_range(statistics)
    if value_range == own_range(statistics):
        return to_rgb(image), statistics, transpose
    if image.format == "PNG" and (decoded := _read_with_torchvision(path)) is not None:
        values = decoded
    elif image.format == "TIFF" and _tifffile_is_installed():
        values, transpose = _read_with_tifffile(path)
    else:
        values = np.asarray(image).astype(np.uint16) * 257
    return _convert_values(values, {"uint16": value_range})[0], statistics, transpose


def _read_with_torchvision(path: Path) -> npt.NDArray[np.generic] | None:
    """Returns all bits of a PNG file, uint16 (H, W, C); None without the decoder, which torchvision is to lose."""
    try:
        from torchvision.io import ImageReadMode, decode_image
    except ImportError:
        return None
    return np.asarray(decode_image(str(path), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy())


def _read_unidentified(path: Path, ranges: ValueRanges, error: UnidentifiedImageError) -> FileImage:
    """Reads a file that Pillow cannot identify with tifffile, if it is TIFF.

    Raises:
        ValueError: The file is not TIFF, or a library for its format is not installed.
    """
    with path.open("rb") as file:
        signature = file.read(4)
    if not signature:
        raise ValueError("the file is empty") from error
    if is_heif(path) and not heif_is_installed():
        raise ValueError(NEEDS_HEIF) from error
    if signature not in _TIFF_SIGNATURES:
        raise ValueError(UNKNOWN_FORMAT) from error
    if not _tifffile_is_installed():
        raise ValueError(NEEDS_TIFFFILE) from error
    values, transpose = _read_with_tifffile(path)
    height, width = values.shape[:2]
    if values.dtype == np.uint8:
        rgb, statistics = to_rgb(Image.fromarray(values.squeeze())), ValueStatistics()
    else:
        rgb, statistics = _convert_values(values, ranges)
    return FileImage(rgb, transpose, f"{values.dtype}", (width, height), statistics)


def _tifffile_is_installed() -> bool:
    return importlib.util.find_spec("tifffile") is not None


def _read_with_tifffile(path: Path) -> tuple[npt.NDArray[np.generic], Image.Transpose | None]:
    """Returns the first page of a TIFF file, (H, W) or (H, W, C) with 1 ... 4 channels, and what turns it upright."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        page = file.pages.first
        if page.size > 4 * MAX_PIXELS:
            raise ValueError(f"has more than {MAX_PIXELS / 1e6:.0f} million pixels; save it smaller")
        orientation = page.tags.get(_ORIENTATION_TAG)
        values: npt.NDArray[np.generic] = page.asarray()
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, 2)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] > 4):
        raise ValueError(f"has the shape {values.shape}; expected an image of 1 to 4 channels")
    return values, None if orientation is None else _TRANSPOSES.get(int(orientation.value))
