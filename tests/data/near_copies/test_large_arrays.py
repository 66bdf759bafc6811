"""Arrays that may be too large to be kept in memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from nbt.data.near_copies import large_arrays
from nbt.data.near_copies.large_arrays import empty_array


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def is_in_file(array: np.ndarray) -> bool:
    while array.base is not None and isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array, np.memmap)


def test_a_small_array_is_in_memory(cache: Path) -> None:
    array = empty_array(4, 3)
    assert array.shape == (4, 3) and array.dtype == np.float32
    assert not is_in_file(array) and not cache.exists()


def test_a_large_array_is_in_a_file_without_a_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_arrays, "MAX_IN_MEMORY", 40)
    array = empty_array(4, 3)
    array[:] = np.arange(12).reshape(4, 3)
    assert is_in_file(array) and array.sum() == 66 and type(array[1:] * 2) is np.ndarray
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_without_room_it_is_in_memory(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(large_arrays, "MAX_IN_MEMORY", 40)
    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    array = empty_array(4, 3)
    array[:] = 1
    assert not is_in_file(array) and array.sum() == 12


def test_a_system_that_cannot_reserve_room_keeps_it_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_arrays, "MAX_IN_MEMORY", 40)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert not is_in_file(empty_array(4, 3))
