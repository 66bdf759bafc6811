"""The cache of frozen features that several workers share."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nbt.training.worker.shared_feature_cache import SharedFeatureCache
from tests.training.worker.test_feature_cache import ENTRY, ROWS, FakeFrozenUnits, rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


def test_a_row_is_computed_by_one_worker_only(folder: Path) -> None:
    first, second = SharedFeatureCache(ROWS, folder), SharedFeatureCache(ROWS, folder)
    units, others = FakeFrozenUnits(), FakeFrozenUnits(offset=0.5)
    values = first.fill("view", rows(5, 3), units)
    shared = second.fill("view", rows(3, 4, 5), others)
    assert values is not None and shared is not None
    assert sorted(units.requested) == [3, 5] and others.requested == [4]
    assert shared[rows(3, 4, 5)][:, 0].tolist() == [3, 4.5, 5]
    assert first.fill("view", rows(4), units) is not None
    assert values[4, 0] == 4.5, "both workers map the same memory"
    assert sorted(units.requested) == [3, 5]
    assert first.memory_used == 0


def test_other_views_are_other_entries(folder: Path) -> None:
    cache = SharedFeatureCache(ROWS, folder)
    for number, key in enumerate([((), 3, "crop", 0), ((), 3, "crop", 1), ((), 4, "crop", 0), (("a",), 3, "crop", 0)]):
        values = cache.fill(key, rows(1), FakeFrozenUnits(offset=float(number)))
        assert values is not None and values[1, 0] == 1.0 + number


def test_the_files_used_least_recently_are_removed(folder: Path) -> None:
    limit = 2 * (ENTRY + 128)
    first, second = SharedFeatureCache(ROWS, folder, disk_bytes=limit), SharedFeatureCache(ROWS, folder)
    values = first.fill("a", torch.arange(ROWS), FakeFrozenUnits())
    time.sleep(0.01)
    first.fill("b", torch.arange(ROWS), FakeFrozenUnits())
    time.sleep(0.01)
    second.fill("a", rows(0), FakeFrozenUnits())  # in use by the other worker
    time.sleep(0.01)
    first.fill("c", torch.arange(ROWS), FakeFrozenUnits())
    assert sum(path.stat().st_size for path in folder.glob("*.npy")) <= limit
    again = FakeFrozenUnits()
    first.fill("a", rows(7), again)
    assert again.requested == []
    first.fill("b", rows(7), again)
    assert again.requested == [7]
    assert values is not None and values[:, 0].tolist() == list(range(ROWS)), "values stay valid"


def test_an_entry_that_another_worker_removed_is_computed_again(folder: Path) -> None:
    cache, units = SharedFeatureCache(ROWS, folder), FakeFrozenUnits()
    cache.fill("view", rows(1), units)
    for path in folder.glob("*.npy"):
        path.unlink()
    values = cache.fill("view", rows(1), units)
    assert units.requested == [1, 1]
    assert values is not None and values[1, 0] == 1


@pytest.mark.parametrize("damage", ["truncated", "no mark", "garbage", "other rows", "no folder"])
def test_damaged_files_are_computed_again(folder: Path, damage: str) -> None:
    SharedFeatureCache(ROWS, folder).fill("view", rows(1, 2), FakeFrozenUnits())
    [file], [mark] = folder.glob("*.npy"), folder.glob("*.rows")
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "no mark":
        mark.unlink()
    elif damage == "garbage":
        mark.write_bytes(b"garbage")
    elif damage == "other rows":
        SharedFeatureCache(ROWS + 1, folder).fill("view", rows(ROWS), FakeFrozenUnits())
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    units = FakeFrozenUnits()
    values = SharedFeatureCache(ROWS, folder).fill("view", rows(1, 2), units)
    assert values is not None and values[rows(1, 2)][:, 0].tolist() == [1, 2]
    assert sorted(units.requested) == [1, 2]


@pytest.mark.parametrize("fits", [False, True])
def test_features_that_the_disk_cannot_hold_are_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = SharedFeatureCache(ROWS, folder, disk_bytes=None if fits else ENTRY // 2)
    assert cache.fill("view", rows(1), FakeFrozenUnits()) is None
    assert not list(folder.glob("*.npy"))
    assert [part[:, 0].tolist() for part in cache.compute(rows(1, 2), FakeFrozenUnits())] == [[1, 2]]


def _fill_slowly(folder: Path, start: Any, results: Any) -> None:
    units = FakeFrozenUnits()

    def compute(chunk: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return units(chunk)

    start.wait()
    values = SharedFeatureCache(ROWS, folder).fill("view", torch.arange(ROWS), compute)
    assert values is not None
    results.put((len(units.requested), values[:, 0].tolist()))


def test_two_processes_compute_each_row_once(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_fill_slowly, args=(folder, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum(count for count, _ in outcomes) == ROWS
    assert [values for _, values in outcomes] == [list(range(ROWS))] * 2


def test_a_killed_worker_releases_its_lock(folder: Path) -> None:
    pid = os.fork()
    if pid == 0:
        SharedFeatureCache(ROWS, folder).fill("view", rows(1, 2), lambda chunk: os._exit(7))  # type: ignore[arg-type]
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert SharedFeatureCache(ROWS, folder).fill("view", rows(1, 2), FakeFrozenUnits()) is not None
