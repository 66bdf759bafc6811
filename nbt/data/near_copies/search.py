"""The search for near copies among the images of a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbt.data.near_copies.candidates import Descriptions, Index, describe, find_candidates
from nbt.data.near_copies.comparison import are_copies


@dataclass(frozen=True, eq=False)
class NearCopies:
    """The near copies of a dataset.

    Attributes:
        groups: Groups of images that are copies of each other, sorted indices, int64 (2 or more,) each.
        mirrored: Pairs of images of which one is a copy of the other one mirrored, int64 (n, 2).
        not_compared: Number of pairs of similar images that were not compared, because there were too many.
    """

    groups: tuple[Index, ...]
    mirrored: Index
    not_compared: int = 0


def find_near_copies(images: npt.NDArray[np.uint8]) -> NearCopies:
    """Returns the images that are copies of each other, or of each other mirrored.

    Images with equal pixels are copies. Others are copies if, after the best crop, recompression, scaling and a crop
    explain every difference; see `nbt.data.near_copies.comparison.difference`.

    Args:
        images: RGB images, uint8 (N, H, H, 3).
    """
    from scipy.sparse import coo_array  # slow to import, and workers import this module
    from scipy.sparse.csgraph import connected_components

    first = first_of_equal(images)
    unique = np.unique(first)
    if len(unique) < 2:
        pairs = mirrored = np.empty((0, 2), dtype=np.int64)
        not_compared = 0
    else:
        described = describe(images, unique)
        found = [_similar_pairs(images, unique, described, flip) for flip in (False, True)]
        pairs, mirrored = (unique[indices] for indices, _ in found)
        not_compared = sum(left_out for _, left_out in found)
    edges = np.concatenate([np.stack([np.arange(len(images)), first], axis=1), pairs])
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(len(images),) * 2)
    n_groups, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group, minlength=n_groups))[:-1])
    groups = tuple(np.asarray(member, dtype=np.int64) for member in members if len(member) > 1)
    return NearCopies(groups, mirrored, not_compared)


def first_of_equal(images: npt.NDArray[np.uint8]) -> Index:
    """Returns the index of the first image with the same pixels, int64 (N,).

    Args:
        images: RGB images, uint8 (N, H, H, 3).
    """
    seen: dict[bytes, int] = {}
    hashes = (hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
    return np.array([seen.setdefault(digest, i) for i, digest in enumerate(hashes)], dtype=np.int64)


def _similar_pairs(
    images: npt.NDArray[np.uint8], index: Index, described: Descriptions, mirrored: bool
) -> tuple[Index, int]:
    """Returns pairs of near copies, the smaller position in `index` first, each once, and `not_compared`."""
    candidates = find_candidates(described, mirrored)
    copies, left_out = are_copies(images, index, described.grey, candidates, mirrored)
    return np.unique(np.sort(candidates.pairs[copies], axis=1), axis=0), left_out
