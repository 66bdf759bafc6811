"""Nearest neighbours among descriptors: an exact search of few images, and one by clusters of many."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nbt.data.near_copies.thumbnails import Floats

Index = npt.NDArray[np.int64]
_Found: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Floats]  # query, image and cosine

MAX_EXACT = 20_000
"""Number of images up to which every image is compared with every other; the time of that grows with its square."""

_ROWS_PER_CHUNK = 256
# Clusters per square root of the number of images, and how many are searched for each image.
_CLUSTERS, _PROBES = 4.0, 16
_IMAGES_PER_CLUSTER, _ITERATIONS = 32, 5
# So many found pairs, or as many as are returned, are kept until only the nearest of each image are.
_MAX_FOUND = 1_000_000


def find_neighbours(queries: Floats, described: Floats, count: int, min_cosine: float) -> Index:
    """Returns pairs of an image and another one with a similar descriptor, int64 (n, 2).

    Of more than `MAX_EXACT` images, some neighbours may be missed: those in none of the clusters whose centres are the
    nearest to the image.

    Args:
        queries: A unit descriptor of each image, (N, D).
        described: Several unit descriptors of each image, (C, N, D); the largest of their cosines counts.
        count: Number of nearest neighbours per image.
        min_cosine: Smallest cosine of a pair.
    """
    if len(queries) > MAX_EXACT:
        return _search_clusters(queries, described, count, min_cosine)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(queries), _ROWS_PER_CHUNK):
        rows = queries[start : start + _ROWS_PER_CHUNK]
        cosines = rows @ described[0].T
        for descriptors in described[1:]:
            np.maximum(cosines, rows @ descriptors.T, out=cosines)
        index = np.arange(len(rows))
        cosines[index, start + index] = -1
        found, nearest, _ = _largest(cosines, count, min_cosine)
        pairs.append(np.stack([start + found, nearest], axis=1))
    return np.concatenate(pairs)


def _largest(cosines: Floats, count: int, min_cosine: float) -> tuple[Index, Index, Floats]:
    """Returns row, column and value of the largest cosines of each row, which it overwrites."""
    rows, found = np.arange(len(cosines)), []
    for _ in range(min(count, cosines.shape[1])):
        nearest = cosines.argmax(1)
        values = cosines[rows, nearest]
        near = np.flatnonzero(values >= min_cosine)
        if not len(near):
            break
        found.append((near, nearest[near], values[near]))
        cosines[rows, nearest] = -1
    if not found:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0, dtype=np.float32)
    row, column, value = map(np.concatenate, zip(*found, strict=True))
    return row, column, value


def _search_clusters(queries: Floats, described: Floats, count: int, min_cosine: float) -> Index:
    """Returns the pairs of `find_neighbours` that an inverted file finds (Sivic and Zisserman 2003)."""
    n_crops, n, _ = described.shape
    centres = _cluster_centres(described[0], min(n, round(_CLUSTERS * math.sqrt(n))))
    own = np.concatenate([_nearest_centres(crops, centres, 1)[:, 0] for crops in described])
    members = _by_cluster(own, centres)
    searching = _by_cluster(_nearest_centres(queries, centres, min(_PROBES, len(centres))).T.ravel(), centres)
    flat = described.reshape(n_crops * n, -1)
    found, n_found = list[_Found](), 0
    for contained, asking in zip(members, searching, strict=True):
        asking = asking % n
        for start in range(0, len(asking), _ROWS_PER_CHUNK):
            rows = asking[start : start + _ROWS_PER_CHUNK]
            cosines = queries[rows] @ flat[contained].T
            images = contained % n
            cosines[rows[:, None] == images] = -1
            # An image may be found by several of its crops.
            row, column, value = _largest(cosines, min(2 * count, len(images)), min_cosine)
            found.append((rows[row].astype(np.int32), images[column].astype(np.int32), value))
            n_found += len(row)
            if n_found > max(_MAX_FOUND, count * n):
                found, n_found = [_largest_of_each(found, count)], 0
    query, image, _ = _largest_of_each(found, count)
    return np.stack([query, image], axis=1).astype(np.int64)


def _largest_of_each(found: Sequence[_Found], count: int) -> _Found:
    """Returns the pairs of each query with the largest values, each once."""
    query, image, value = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((-value, image, query))
    query, image, value = query[order], image[order], value[order]
    is_new = np.ones(len(query), dtype=bool)
    is_new[1:] = (query[1:] != query[:-1]) | (image[1:] != image[:-1])
    query, image, value = query[is_new], image[is_new], value[is_new]
    order = np.lexsort((-value, query))
    query, image, value = query[order], image[order], value[order]
    kept = np.arange(len(query)) - np.searchsorted(query, query) < count
    return query[kept], image[kept], value[kept]


def _cluster_centres(rows: Floats, n_clusters: int) -> Floats:
    """Returns unit centres of clusters of a sample of the rows, (n_clusters, D)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(0)
    sample = rows[np.sort(rng.choice(len(rows), min(len(rows), _IMAGES_PER_CLUSTER * n_clusters), replace=False))]
    means = KMeans(n_clusters, init="random", n_init=1, max_iter=_ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different images than clusters
        centres = means.fit(sample).cluster_centers_
    return np.asarray(centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _nearest_centres(rows: Floats, centres: Floats, count: int) -> Index:
    """Returns the indices of the centres with the largest cosines, (n, count)."""
    found = []
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        cosines = rows[start : start + _ROWS_PER_CHUNK] @ centres.T
        largest = cosines.argmax(1)[:, None] if count == 1 else np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        found.append(largest.astype(np.int32))  # a copy, which does not keep all columns
    return np.concatenate(found)


def _by_cluster(labels: Index, centres: Floats) -> list[Index]:
    """Returns the indices of the labels of each cluster."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels, minlength=len(centres)))[:-1])
