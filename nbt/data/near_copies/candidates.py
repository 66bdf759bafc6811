"""Pairs of images that may be near copies, by descriptors of the whole images and of their crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.data.near_copies.large_arrays import empty_array
from nbt.data.near_copies.neighbours import find_neighbours
from nbt.data.near_copies.thumbnails import Floats, sample_crops, shrink, thumbnails

Index = npt.NDArray[np.int64]

NEIGHBOURS = 8
"""Nearest neighbours per image that are compared."""

MIN_COSINE = 0.5
"""Smallest cosine of the descriptors of a pair that is compared."""

_SHIFT = 0.05
CROPS = np.array(
    [
        (1.0, 1.0, 0.0, 0.0),
        (0.9, 0.9, 0.0, 0.0),
        (0.95, 0.95, 0.0, 0.0),
        *((0.95, 0.95, x, y) for x in (-_SHIFT, _SHIFT) for y in (-_SHIFT, _SHIFT)),
    ],
    dtype=np.float32,
)
"""Crops of which an image has descriptors, as for `sample_crops`: all of it, its middle, and its corners."""

_GRID = 16
_DIMENSIONS = 128
_IMAGES_PER_DIMENSION = 4
# Of fewer images, the components hold what compression changes, or are arbitrary where nothing varies.
_MIN_IMAGES = 32
_BASIS_IMAGES = 4096
_IMAGES_PER_CHUNK, _PAIRS_PER_CHUNK = 512, 4096
# Variance in grey levels squared that compression and sampling add to a cell of the grid.
_NOISE = 2.0


@dataclass(frozen=True, eq=False)
class Descriptions:
    """Descriptions of N images.

    Attributes:
        grey: Grey values, (N, 32, 32).
        crops: Unit descriptors of the images through each of `CROPS`, (7, N, D).
        mirrored: Unit descriptors of the mirrored images, (N, D).
    """

    grey: Floats
    crops: Floats
    mirrored: Floats


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of images to compare.

    Attributes:
        pairs: Indices of a query and of the image of which it may be a crop, int64 (n, 2).
        crops: The likeliest crop of each pair, as for `sample_crops`, (n, 4).
    """

    pairs: Index
    crops: Floats


def find_candidates(described: Descriptions, mirrored: bool = False) -> Candidates:
    """Returns each image's nearest neighbours, by the largest cosine of its descriptor with those of their crops.

    Args:
        described: Descriptions of the images.
        mirrored: Whether to look for mirrored copies.
    """
    queries = described.mirrored if mirrored else described.crops[0]
    found = find_neighbours(queries, described.crops, NEIGHBOURS, MIN_COSINE)
    cosines, crops = np.empty(len(found), dtype=np.float32), np.empty(len(found), dtype=np.int64)
    for chunk in _chunks(len(found), _PAIRS_PER_CHUNK):
        first, second = found[chunk].T
        by_crop = np.einsum("pd,cpd->cp", queries[first], described.crops[:, second])
        cosines[chunk], crops[chunk] = by_crop.max(0), by_crop.argmax(0)
    # Of the two directions of a pair, the one with the larger cosine is compared.
    order = np.argsort(-cosines, kind="stable")
    kept = order[np.unique(np.sort(found[order], axis=1), axis=0, return_index=True)[1]]
    return Candidates(found[kept], CROPS[crops[kept]])


def describe(images: npt.NDArray[np.uint8], index: Index) -> Descriptions:
    """Describes images by the principal components of 16 x 16 grey values, scaled to unit variance over the dataset.

    What the images have in common has no weight, as in a set of hand signs before one wall. Fewer than 32 images are
    described by the grey values themselves, without their mean.

    Args:
        images: RGB images, uint8 (M, H, H, 3).
        index: The images to describe, (N,), with N >= 2.
    """
    n = len(index)
    grey = empty_array(n, 2 * _GRID, 2 * _GRID)
    for chunk in _chunks(n, _IMAGES_PER_CHUNK):
        grey[chunk] = _grey(images[index[chunk]])
    mean, projection = _components(_grid(grey[:: max(1, n // _BASIS_IMAGES)]), n)
    described = empty_array(len(CROPS) + 1, n, projection.shape[1])
    for chunk in _chunks(n, _IMAGES_PER_CHUNK):
        for view, rows in zip(_views(grey[chunk]), described, strict=True):
            rows[chunk] = _unit(((_grid(view) - mean) @ projection).astype(np.float32))
    return Descriptions(grey, described[:-1], described[-1])


def _components(values: Floats, n: int) -> tuple[Floats, Floats]:
    """Returns the values that all images have in common, (256,), and the projection on the components, (256, D).

    Args:
        values: Grey values of images, (m, 256).
        n: Number of all images.
    """
    if n < _MIN_IMAGES:
        cells = values.shape[1]
        return np.zeros(cells, dtype=np.float32), np.eye(cells, dtype=np.float32) - np.float32(1 / cells)
    mean = values.mean(0)
    variances, basis = np.linalg.eigh(np.cov(values - mean, rowvar=False))
    kept = slice(-min(_DIMENSIONS, n // _IMAGES_PER_DIMENSION), None)
    return mean, (basis[:, kept] / np.sqrt(variances[kept].clip(0) + _NOISE)).astype(np.float32)


def _views(grey: Floats) -> list[Floats]:
    crops = [sample_crops(grey, np.tile(crop, (len(grey), 1)))[0] for crop in CROPS[1:]]
    return [grey, *crops, np.ascontiguousarray(grey[:, :, ::-1])]


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _grey(images: npt.NDArray[np.uint8]) -> Floats:
    return thumbnails(images, 2 * _GRID)[:, 0]


def _grid(grey: Floats) -> Floats:
    return shrink(grey, _GRID).reshape(len(grey), -1)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)
