from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nbt.training.worker.feature_cache import CHUNK_SIZE, FrozenFeatureCache

ROWS = 150
WIDTH = 16
ENTRY = ROWS * WIDTH * 4


class Prefix:
    """Stands for the frozen units: counts what it is asked for, and checks that it always gets a whole chunk."""

    def __init__(self, offset: float = 0.0, chunk: int = CHUNK_SIZE) -> None:
        self.asked: list[int] = []
        self.offset, self.chunk = offset, chunk

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        assert len(rows) == self.chunk
        self.asked += rows.unique().tolist()
        return rows.float().unsqueeze(1).repeat(1, WIDTH) + self.offset


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_computes_each_row_once_and_only_those_asked_for() -> None:
    cache, prefix = FrozenFeatureCache(ROWS, 10 * ENTRY), Prefix()
    values = cache.fill("view", rows(5, 3, 149), prefix)
    assert values is not None
    assert values[rows(3, 5, 149)][:, 0].tolist() == [3, 5, 149]
    assert sorted(prefix.asked) == [3, 5, 149]
    cache.fill("view", rows(3, 4, 5), prefix)
    assert sorted(prefix.asked) == [3, 4, 5, 149]


def test_a_chunk_may_be_of_another_length_and_is_always_whole() -> None:
    cache, prefix = FrozenFeatureCache(ROWS, 10 * ENTRY, chunk=7), Prefix(chunk=7)
    values = cache.fill("view", torch.arange(ROWS), prefix)
    assert values is not None
    assert values[:, 3].tolist() == prefix.asked == list(range(ROWS))


def test_what_does_not_fit_in_memory_is_mapped_from_a_file_with_the_same_values(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, ENTRY - 1, folder=tmp_path)
    values = cache.fill("view", torch.arange(ROWS), Prefix())
    assert values is not None
    assert values[:, 7].tolist() == list(range(ROWS))
    assert (cache.memory_used, cache.disk_used) == (0, ENTRY)
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_moves_to_disk_when_memory_is_full(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, 2 * ENTRY, folder=tmp_path)
    views = {name: Prefix(offset) for name, offset in (("a", 0.0), ("b", 1000.0), ("c", 2000.0))}
    for name, prefix in views.items():
        cache.fill(name, torch.arange(ROWS), prefix)
    assert (cache.memory_used, cache.disk_used) == (2 * ENTRY, ENTRY)
    for name, prefix in views.items():
        values = cache.fill(name, torch.arange(ROWS), prefix)
        assert values is not None
        assert values[10, 0].item() == 10 + prefix.offset
        assert len(prefix.asked) == ROWS, "spilled, not computed again"
    cache.close()


def test_what_fits_neither_memory_nor_disk_is_refused() -> None:
    cache = FrozenFeatureCache(ROWS, ENTRY - 1, disk_bytes=ENTRY - 1)
    assert cache.fill("view", torch.arange(ROWS), Prefix()) is None
    cache.close()


def test_a_full_disk_forgets_the_oldest_but_whoever_holds_it_keeps_it(tmp_path: Path) -> None:
    cache = FrozenFeatureCache(ROWS, 0, disk_bytes=ENTRY, folder=tmp_path)
    first = Prefix()
    held = cache.fill("a", torch.arange(ROWS), first)
    cache.fill("b", torch.arange(ROWS), Prefix(5.0))
    assert held is not None
    assert held[12, 0].item() == 12
    assert cache.disk_used == ENTRY
    cache.fill("a", rows(1, 2), first)
    assert len(first.asked) == ROWS + 2, "forgotten, so computed again"
    cache.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spilled_values_keep_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    cache = FrozenFeatureCache(ROWS, 0, folder=tmp_path)
    values = cache.fill("view", rows(1, 2), lambda r: r.to(dtype).unsqueeze(1))
    assert values is not None
    assert values.dtype == dtype
    assert values[rows(1, 2)].flatten().tolist() == [1, 2]
    cache.close()
