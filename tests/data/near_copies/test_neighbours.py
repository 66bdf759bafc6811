"""Nearest neighbours among descriptors."""

from __future__ import annotations

import numpy as np
import pytest

from nbt.data.near_copies import neighbours
from nbt.data.near_copies.neighbours import find_neighbours
from nbt.data.near_copies.thumbnails import Floats


def unit(rows: np.ndarray) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def make_descriptors(n: int = 600, crops: int = 3, dimensions: int = 16) -> Floats:
    """Returns descriptors of images, (crops, n, dimensions); every even image has a copy, the next one."""
    rng = np.random.default_rng(0)
    whole = unit(rng.normal(size=(n, dimensions)))
    whole[1::2] = unit(whole[::2] + 0.05 * rng.normal(size=(n // 2, dimensions)))
    return np.stack([whole, *(unit(whole + 0.2 * rng.normal(size=whole.shape)) for _ in range(crops - 1))])


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(first), int(second)) for first, second in pairs}


def test_few_images_get_all_their_nearest_neighbours() -> None:
    described = make_descriptors()
    pairs = find_neighbours(described[0], described, 4, 0.5)
    cosines = np.max([described[0] @ rows.T for rows in described], axis=0)
    np.fill_diagonal(cosines, -1)
    expected = {(i, int(j)) for i, row in enumerate(cosines) for j in np.argsort(-row)[:4] if row[j] >= 0.5}
    assert as_set(pairs) == expected and len(pairs) == len(expected)


def test_clusters_find_nearly_the_same_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    described = make_descriptors()
    exact = as_set(find_neighbours(described[0], described, 4, 0.5))
    monkeypatch.setattr(neighbours, "MAX_EXACT", 0)
    found = find_neighbours(described[0], described, 4, 0.5)
    assert len(as_set(found)) == len(found)
    assert len(exact & as_set(found)) >= 0.9 * len(exact)
    assert np.bincount(found[:, 0]).max() <= 4 and (found[:, 0] != found[:, 1]).all()
    assert {(i, i + 1) for i in range(0, 600, 2)} <= as_set(found), "the copies are the nearest of all"
    assert np.array_equal(found, find_neighbours(described[0], described, 4, 0.5)), "the same each time"


def test_pairs_are_reduced_to_the_nearest_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_EXACT", 0)
    described = make_descriptors()
    expected = find_neighbours(described[0], described, 1, 0.5)
    reduced = []
    monkeypatch.setattr(neighbours, "_MAX_FOUND", 50)
    largest = neighbours._largest_of_each
    monkeypatch.setattr(neighbours, "_largest_of_each", lambda *args: reduced.append(1) or largest(*args))
    assert np.array_equal(find_neighbours(described[0], described, 1, 0.5), expected)
    assert len(reduced) > 2


@pytest.mark.parametrize("n", [2, 9])
def test_clusters_of_very_few_images(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_EXACT", 0)
    described = make_descriptors(n + n % 2)[:, :n]
    assert (0, 1) in as_set(find_neighbours(described[0], described, 8, 0.5))
    assert not len(find_neighbours(described[0], described, 8, 1.1))
