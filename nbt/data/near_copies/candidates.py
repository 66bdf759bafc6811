"""Pairs of images that may be near copies, by descriptors of the whole images and of their crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nbt.data.near_copies.thumbnails import Floats, sample_crops, shrink, thumbnails

Rows = TypeVar("Rows", Floats, npt.NDArray[np.uint8])

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
# Of few images, the components of small variance are noise.
_MIN_DIMENSIONS, _IMAGES_PER_DIMENSION = 8, 4
_BASIS_IMAGES = 4096
_IMAGES_PER_CHUNK = 512
_ROWS_PER_CHUNK = 256
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

    pairs: npt.NDArray[np.int64]
    crops: Floats


def find_candidates(described: Descriptions, mirrored: bool = False) -> Candidates:
    """Returns each image's nearest neighbours, by the largest cosine of its descriptor with those of their crops.

    The search is exact.

    Args:
        described: Descriptions of the images.
        mirrored: Whether to look for mirrored copies.
    """
    queries = described.mirrored if mirrored else described.crops[0]
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(queries), _ROWS_PER_CHUNK):
        pairs += _nearest(queries[start : start + _ROWS_PER_CHUNK], described.crops, start)
    found = np.concatenate(pairs)
    cosines = np.einsum("pd,cpd->cp", queries[found[:, 0]], described.crops[:, found[:, 1]])
    # Of the two directions of a pair, the one with the larger cosine is compared.
    order = np.argsort(-cosines.max(0), kind="stable")
    kept = order[np.unique(np.sort(found[order], axis=1), axis=0, return_index=True)[1]]
    return Candidates(found[kept], CROPS[cosines.argmax(0)[kept]])


def _nearest(queries: Floats, described: Floats, start: int) -> list[npt.NDArray[np.int64]]:
    """Returns pairs of queries and their nearest neighbours; the first query is image `start`."""
    cosines = queries @ described[0].T
    for descriptors in described[1:]:
        np.maximum(cosines, queries @ descriptors.T, out=cosines)
    rows = np.arange(len(queries))
    cosines[rows, start + rows] = -1
    pairs = []
    for _ in range(NEIGHBOURS):
        nearest = cosines.argmax(1)
        near = np.flatnonzero(cosines[rows, nearest] >= MIN_COSINE)
        pairs.append(np.stack([start + near, nearest[near]], axis=1))
        cosines[rows, nearest] = -1
    return pairs


def describe(images: npt.NDArray[np.uint8]) -> Descriptions:
    """Describes images by the principal components of 16 x 16 grey values, scaled to unit variance over the dataset.

    What the images have in common has no weight, as in a set of hand signs before one wall.

    Args:
        images: RGB images, uint8 (N, H, H, 3), with N >= 2.
    """
    grey = np.concatenate([_grey(chunk) for chunk in _chunks(images)])
    values = _grid(grey[:: max(1, len(images) // _BASIS_IMAGES)])
    mean = values.mean(0)
    variances, basis = np.linalg.eigh(np.cov(values - mean, rowvar=False))
    kept = slice(-min(_DIMENSIONS, max(_MIN_DIMENSIONS, len(images) // _IMAGES_PER_DIMENSION)), None)
    projection = (basis[:, kept] / np.sqrt(variances[kept].clip(0) + _NOISE)).astype(np.float32)
    described = [
        np.stack([_unit((_grid(view) - mean) @ projection) for view in _views(chunk)]) for chunk in _chunks(grey)
    ]
    *crops, mirrored = np.concatenate(described, axis=1)
    return Descriptions(grey, np.stack(crops), mirrored)


def _views(grey: Floats) -> list[Floats]:
    crops = [sample_crops(grey, np.tile(crop, (len(grey), 1)))[0] for crop in CROPS[1:]]
    return [grey, *crops, np.ascontiguousarray(grey[:, :, ::-1])]


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[start : start + _IMAGES_PER_CHUNK] for start in range(0, len(rows), _IMAGES_PER_CHUNK)]


def _grey(images: npt.NDArray[np.uint8]) -> Floats:
    return thumbnails(images, 2 * _GRID)[:, 0]


def _grid(grey: Floats) -> Floats:
    return shrink(grey, _GRID).reshape(len(grey), -1)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)
