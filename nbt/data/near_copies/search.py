"""The search for near copies among the images of a dataset."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nbt.data.near_copies.candidates import find_candidates
from nbt.data.near_copies.comparison import are_copies

Index = npt.NDArray[np.int64]


def find_near_copies(images: npt.NDArray[np.uint8]) -> list[Index]:
    """Returns the groups of images that are copies of each other, sorted indices, int64 (2 or more,) each.

    Images with equal pixels are copies. Others are copies if, after the best crop, compression and sampling explain
    every difference; see `nbt.data.near_copies.comparison.difference`.

    Args:
        images: RGB images, uint8 (N, H, H, 3).
    """
    first = _first_of_equal(images)
    unique = np.unique(first)
    pairs = unique[_similar_pairs(images[unique] if len(unique) < len(images) else images)]
    edges = np.concatenate([np.stack([np.arange(len(images)), first], axis=1), pairs])
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(len(images),) * 2)
    n_groups, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group, minlength=n_groups))[:-1])
    return [np.asarray(indices, dtype=np.int64) for indices in members if len(indices) > 1]


def find_mirrored_copies(images: npt.NDArray[np.uint8]) -> Index:
    """Returns pairs of images of which one is a near copy of the other one mirrored, int64 (n, 2).

    Args:
        images: RGB images, uint8 (N, H, H, 3).
    """
    return _similar_pairs(images, mirrored=True)


def _similar_pairs(images: npt.NDArray[np.uint8], mirrored: bool = False) -> Index:
    """Returns pairs of near copies, the smaller index first, each once, int64 (n, 2)."""
    if len(images) < 2:
        return np.empty((0, 2), dtype=np.int64)
    candidates = find_candidates(images, mirrored)
    copies = are_copies(images, candidates.pairs, candidates.crops, mirrored)
    return np.unique(np.sort(candidates.pairs[copies], axis=1), axis=0)


def _first_of_equal(images: npt.NDArray[np.uint8]) -> Index:
    """Returns the index of the first image with the same pixels, int64 (N,)."""
    seen: dict[bytes, int] = {}
    hashes = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
    return np.array([seen.setdefault(digest, i) for i, digest in enumerate(hashes)], dtype=np.int64)
