"""The cache of frozen features, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nbt.training.worker.feature_cache import CHUNK_SIZE, FrozenFeatureCache

ROWS = 150
WIDTH = 16
ENTRY = ROWS * WIDTH * 4


class FakeFrozenUnits:
    """Replaces the frozen units: records the requested rows, and checks that it always gets a full chunk."""

    def __init__(self, offset: float = 0.0, chunk: int = CHUNK_SIZE) -> None:
        self.requested: list[int] = []
        self.offset, self.chunk = offset, chunk

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        assert len(rows) == self.chunk
        self.requested += rows.unique().tolist()
        return rows.float().unsqueeze(1).repeat(1, WIDTH) + self.offset


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_computes_each_requested_row_once() -> None:
    cache, frozen_units = FrozenFeatureCache(ROWS, 10 * ENTRY), FakeFrozenUnits()
    values = cache.fill("view", rows(5, 3, 149), frozen_units)
    assert values is not None
    assert values[rows(3, 5, 149)][:, 0].tolist() == [3, 5, 149]
    assert sorted(frozen_units.requested) == [3, 5, 149]
    cache.fill("view", rows(3, 4, 5), frozen_units)
    assert sorted(frozen_units.requested) == [3, 4, 5, 149]


def test_chunks_of_another_size_are_always_full() -> None:
    cache, frozen_units = FrozenFeatureCache(ROWS, 10 * ENTRY, chunk=7), FakeFrozenUnits(chunk=7)
    values = cache.fill("view", torch.arange(ROWS), frozen_units)
    assert values is not None
    assert values[:, 3].tolist() == frozen_units.requested == list(range(ROWS))


def test_a_view_that_does_not_fit_in_memory_is_memory_mapped_with_the_same_values(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, ENTRY - 1, folder=tmp_path)
    values = cache.fill("view", torch.arange(ROWS), FakeFrozenUnits())
    assert values is not None
    assert values[:, 7].tolist() == list(range(ROWS))
    assert (cache.memory_used, cache.disk_used) == (0, ENTRY)
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_view_moves_to_disk_when_memory_is_full(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, 2 * ENTRY, folder=tmp_path)
    views = {name: FakeFrozenUnits(offset) for name, offset in (("a", 0.0), ("b", 1000.0), ("c", 2000.0))}
    for name, frozen_units in views.items():
        cache.fill(name, torch.arange(ROWS), frozen_units)
    assert (cache.memory_used, cache.disk_used) == (2 * ENTRY, ENTRY)
    for name, frozen_units in views.items():
        values = cache.fill(name, torch.arange(ROWS), frozen_units)
        assert values is not None
        assert values[10, 0].item() == 10 + frozen_units.offset
        assert len(frozen_units.requested) == ROWS, "spilled, not computed again"
    cache.close()


def test_a_view_that_fits_neither_in_memory_nor_on_disk_is_refused() -> None:
    cache = FrozenFeatureCache(ROWS, ENTRY - 1, disk_bytes=ENTRY - 1)
    assert cache.fill("view", torch.arange(ROWS), FakeFrozenUnits()) is None
    cache.close()


def test_a_full_disk_drops_the_oldest_view_whose_values_stay_valid(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, 0, disk_bytes=ENTRY, folder=tmp_path)
    first = FakeFrozenUnits()
    held = cache.fill("a", torch.arange(ROWS), first)
    cache.fill("b", torch.arange(ROWS), FakeFrozenUnits(5.0))
    assert held is not None
    assert held[12, 0].item() == 12
    assert cache.disk_used == ENTRY
    cache.fill("a", rows(1, 2), first)
    assert len(first.requested) == ROWS + 2, "dropped and computed again"
    cache.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spilled_values_keep_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = FrozenFeatureCache(ROWS, 0, folder=tmp_path)
    values = cache.fill("view", rows(1, 2), lambda r: r.to(dtype).unsqueeze(1))
    assert values is not None
    assert values.dtype == dtype
    assert values[rows(1, 2)].flatten().tolist() == [1, 2]
    cache.close()
