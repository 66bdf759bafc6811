"""Compares aligned pairs of images: whether compression and sampling explain all that differs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from nbt.data.near_copies.alignment import align
from nbt.data.near_copies.thumbnails import SIDE, Floats, sample_crops, thumbnails

MAX_DIFFERENCE = 4.0
"""Largest difference of a copy, see `difference`; chosen with `studies/near_copies.py`."""

MIN_CORRELATION = 0.8
"""Smallest correlation of the grey values of a copy, so that two images without contrast are no copies."""

# Coarse comparisons discard most pairs: side in pixels, Gauss-Newton steps, and the smallest correlation that is kept.
_LEVELS = ((16, 5, 0.5), (32, 4, 0.5))
_STEPS = 3
_SURE_CORRELATION = 0.95
_BLOCKS = 8
_WORST_BLOCKS = 6
# Noise of compression in grey levels, its part per grey level of contrast and the bound of this part; noise of
# sampling in pixels of misplaced edges. Of luma and of the two chromas.
_NOISE = np.array([0.8, 2.0, 2.0], dtype=np.float32)[:, None, None]
_NOISE_PER_CONTRAST = 0.03
_MAX_NOISE_OF_CONTRAST = 2.0
_JITTER = np.array([0.2, 0.5, 0.5], dtype=np.float32)[:, None, None]
_PAIRS_PER_CHUNK = 32


def are_copies(
    images: npt.NDArray[np.uint8], pairs: npt.NDArray[np.int64], crops: Floats, mirrored: bool = False
) -> npt.NDArray[np.bool_]:
    """Returns whether the first image of each pair is a near copy of the second, (n,).

    Args:
        images: RGB images, uint8 (N, H, H, 3).
        pairs: Indices of the images, int64 (n, 2).
        crops: The likeliest crop of each pair, see `sample_crops`, (n, 4).
        mirrored: Whether to mirror the first image.
    """
    differences = [
        compare(
            _query(images[chunk[:, 0]], mirrored), thumbnails(images[chunk[:, 1]]), crops[start : start + len(chunk)]
        )
        for start in range(0, len(pairs), _PAIRS_PER_CHUNK)
        if len(chunk := pairs[start : start + _PAIRS_PER_CHUNK])
    ]
    return np.concatenate([np.empty(0), *differences]) <= MAX_DIFFERENCE


def _query(images: npt.NDArray[np.uint8], mirrored: bool) -> Floats:
    return thumbnails(images[:, :, ::-1] if mirrored else images)


def compare(queries: Floats, others: Floats, crops: Floats) -> npt.NDArray[np.float64]:
    """Returns `difference` of aligned pairs, (n,); infinite where a coarse comparison finds no correlation.

    Args:
        queries: Thumbnails, (n, 3, SIDE, SIDE).
        others: Thumbnails, of which the queries may be crops, (n, 3, SIDE, SIDE).
        crops: First crop of each pair, (n, 4).
    """
    kept, moved = np.arange(len(crops)), crops
    for side, steps, floor in _LEVELS:
        moved, correlation = align(queries[kept, 0], others[kept, 0], moved, side, steps)
        kept, moved = kept[correlation >= floor], moved[correlation >= floor]
    aligned, correlation = align(queries[kept, 0], others[kept, 0], moved, SIDE, _STEPS)
    # On fine textures the coarse levels may mislead.
    weak = np.flatnonzero(correlation < _SURE_CORRELATION)
    direct, direct_correlation = align(queries[kept[weak], 0], others[kept[weak], 0], crops[kept[weak]], SIDE, _STEPS)
    better = direct_correlation > correlation[weak]
    aligned[weak[better]], correlation[weak[better]] = direct[better], direct_correlation[better]
    differences = np.full(len(crops), np.inf)
    differences[kept] = difference(queries[kept], others[kept], aligned)
    differences[kept[correlation < MIN_CORRELATION]] = np.inf
    return differences


def difference(queries: Floats, others: Floats, crops: Floats) -> npt.NDArray[np.float64]:
    """Returns the squared difference of pairs, divided by that of a copy, in the blocks where they differ most, (n,).

    The expected squared difference of a copy is the variance of compression noise plus that of edges which sampling
    misplaces by a part of a pixel. Of 8 x 8 blocks, the mean ratio of the worst 6 counts, of luma or of chroma.

    Args:
        queries: Thumbnails, (n, 3, SIDE, SIDE).
        others: Thumbnails, (n, 3, SIDE, SIDE).
        crops: The crop of each pair, (n, 4).
    """
    sampled, inside = sample_crops(others, crops)
    inside = inside[:, None]
    contrast = queries[:, :1].std((2, 3), keepdims=True)
    noise = _NOISE + (_NOISE_PER_CONTRAST * contrast).clip(max=_MAX_NOISE_OF_CONTRAST)
    ratios = []
    for planes, width in ((slice(0, 1), 3), (slice(1, 3), 5)):
        first = uniform_filter(queries[:, planes], (0, 0, width, width), mode="nearest")
        second = uniform_filter(sampled[:, planes], (0, 0, width, width), mode="nearest")
        grad_y, grad_x = np.gradient((first + second) / 2, axis=(2, 3))
        expected = noise[:, planes] ** 2 + _JITTER[planes] ** 2 * (grad_x**2 + grad_y**2)
        ratios.append(_block_sums((first - second) ** 2 * inside) / np.maximum(_block_sums(expected * inside), 1e-6))
    covered = _block_sums(inside) > 0.4 * (SIDE / _BLOCKS) ** 2
    worst = np.sort(np.where(covered[None], np.stack(ratios), 0), axis=2)[:, :, -_WORST_BLOCKS:].mean(2)
    return np.asarray(worst.max(0), dtype=np.float64)


def _block_sums(planes: Floats) -> Floats:
    """Returns the sums over planes and pixels of each block, (n, blocks), of planes (n, C, SIDE, SIDE)."""
    n, width = len(planes), SIDE // _BLOCKS
    blocks = planes.reshape(n, planes.shape[1], _BLOCKS, width, _BLOCKS, width)
    return np.asarray(blocks.sum((1, 3, 5)).reshape(n, _BLOCKS**2), dtype=np.float32)
