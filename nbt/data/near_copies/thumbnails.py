"""Small versions of images, and their sampling through a crop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIDE = 64
"""Height and width in pixels at which images are compared."""

# ITU-R BT.601: luma, and the scaled differences of blue and red from it.
_YCC = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], dtype=np.float32)


def thumbnails(images: npt.NDArray[np.uint8], side: int = SIDE) -> Floats:
    """Returns luma and chroma of images, float32 (n, 3, side, side), in units of grey levels.

    Args:
        images: RGB images, uint8 (n, H, H, 3).
        side: Height and width of the result in pixels.
    """
    weights = _area_weights(images.shape[1], side)
    small = np.matmul(np.matmul(weights, images.transpose(0, 3, 1, 2).astype(np.float32)), weights.T)
    return np.asarray(np.einsum("yc,nchw->nyhw", _YCC, small, optimize=True), dtype=np.float32)


def shrink(planes: Floats, side: int) -> Floats:
    """Returns planes (..., H, W) averaged to (..., side, side); `side` divides their height and width."""
    factor = planes.shape[-1] // side
    blocks = planes.reshape(*planes.shape[:-2], side, factor, side, factor)
    return np.asarray(blocks.mean((-3, -1)), dtype=np.float32)


def sample_crops(planes: Floats, crops: Floats, side: int | None = None) -> tuple[Floats, Floats]:
    """Samples each image through a crop, bilinearly.

    Args:
        planes: Planes of n images, (n, ..., H, H).
        crops: Scale x, scale y, shift x, shift y of each crop, (n, 4), in units of half an image: position u in
            -1 ... 1 of the result is position `scale * u + shift` of the image.
        side: Height and width of the result; H when None.

    Returns:
        The sampled planes, (n, ..., side, side), and which pixels lie inside the image, 0 or 1, (n, side, side).
    """
    size = planes.shape[-1]
    x, inside_x = _sampling_weights(size, side or size, crops[:, 0], crops[:, 2])
    y, inside_y = _sampling_weights(size, side or size, crops[:, 1], crops[:, 3])
    extra = (1,) * (planes.ndim - 3)
    shape = (len(planes), *extra, *x.shape[1:])
    sampled = y.reshape(shape) @ planes @ x.reshape(shape).swapaxes(-1, -2)
    return sampled, inside_y[:, :, None] * inside_x[:, None, :]


def _sampling_weights(size: int, side: int, scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Returns the weights of linear interpolation, (n, side, size), and the samples inside the image, (n, side)."""
    position = ((scale[:, None] * pixel_centres(side) + shift[:, None]) + 1) * (size / 2) - 0.5
    inside = (position > -0.75) & (position < size - 0.25)
    position = position.clip(0, size - 1)
    weights = np.maximum(0, 1 - np.abs(position[:, :, None] - np.arange(size, dtype=np.float32)))
    return weights.astype(np.float32), inside.astype(np.float32)


def pixel_centres(side: int) -> Floats:
    """Returns the positions of pixel centres in -1 ... 1, (side,)."""
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)


def _area_weights(size: int, side: int) -> Floats:
    """Returns the weights of the mean over the area of each of `side` cells, (side, size)."""
    edges = np.arange(side + 1)[:, None] * (size / side)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.asarray(np.maximum(overlap, 0) * (side / size), dtype=np.float32)
