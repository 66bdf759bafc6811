"""The cache on disk: its bound, the order of removal, and its use by several processes."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbt.cache import DEFAULT_LIMIT, CacheUse, cache_entries, cache_limit, enforce_limit, remove_entry
from nbt.data.image_store import ImageStore, decode_images
from nbt.errors import UsageError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def add(cache: Path, kind: str, name: str, size: int, age: float) -> Path:
    """Writes an entry of `size` bytes that was used `age` seconds ago."""
    path = cache / kind / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def decode(folder: Path, shade: int, dataset: str = "shades") -> ImageStore:
    folder.mkdir(exist_ok=True)
    path = folder / f"{shade}.png"
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)
    return decode_images([path], 64, dataset=dataset)[0]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", DEFAULT_LIMIT),
        ("20GB", 20 * 10**9),
        ("1.5 tb", 1_500 * 10**9),
        ("500M", 500 * 10**6),
        ("2GiB", 2**31),
        ("0", 0),
    ],
)
def test_limits(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE_LIMIT", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "-1GB", "20XB", "GB"])
def test_a_wrong_limit_is_refused_before_images_are_decoded(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("NBT_CACHE_LIMIT", text)
    with pytest.raises(UsageError, match=r"NBT_CACHE_LIMIT=.*expected a size such as"):
        decode(tmp_path / "images", 1)
    assert not (cache / "images").exists()


def test_the_least_recently_used_entries_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, older, new = (add(cache, "images", n, 1000, age) for n, age in (("b", 500), ("a", 900), ("c", 10)))
    download = add(cache, "datasets", "cub", 10_000, 9999)
    monkeypatch.setenv("NBT_CACHE_LIMIT", "2500")
    enforce_limit()
    assert (older.exists(), old.exists(), new.exists()) == (False, True, True)
    monkeypatch.setenv("NBT_CACHE_LIMIT", "0")
    enforce_limit()
    assert not old.exists() and not new.exists() and download.exists()


def test_a_use_counts_and_not_the_age_of_the_file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = decode(tmp_path / "images", 1).path, decode(tmp_path / "images", 2).path
    past = time.time() - 5000
    for path in cache.rglob("*"):
        os.utime(path, (past, past))
    decode(tmp_path / "images", 1)  # read from the cache
    gc.collect()
    monkeypatch.setenv("NBT_CACHE_LIMIT", "16000")  # images have 12.5 kB, hashes 1 kB
    enforce_limit()
    assert first.exists() and not second.exists()


def test_an_entry_in_use_stays(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = decode(tmp_path / "images", 1)
    monkeypatch.setenv("NBT_CACHE_LIMIT", "0")
    decode(tmp_path / "images", 2)
    assert store.path.exists()
    copy = pickle.loads(pickle.dumps(store))
    path = store.path
    del store
    enforce_limit()
    assert path.exists(), "the unpickled store uses the file"
    del copy
    gc.collect()
    enforce_limit()
    assert not path.exists()


HOLD = """
import sys
from nbt.cache import CacheUse
use = CacheUse("images", sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_an_entry_that_another_process_uses_stays_until_the_process_ends(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add(cache, "images", "a", 1000, 900)
    monkeypatch.setenv("NBT_CACHE_LIMIT", "0")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        enforce_limit()
        assert path.exists() and not remove_entry(cache_entries()[0])
        holder.kill()
        holder.wait()
    enforce_limit()
    assert not path.exists()


def test_a_use_that_begins_during_a_removal_finds_a_new_lock(cache: Path) -> None:
    add(cache, "images", "a", 10, 900)
    assert remove_entry(cache_entries()[0])
    use = CacheUse("images", "a")
    add(cache, "images", "a", 10, 900)
    assert not remove_entry(cache_entries()[0])
    del use
    assert remove_entry(cache_entries()[0])


def test_entries_have_kind_dataset_size_and_use(cache: Path, tmp_path: Path) -> None:
    store = decode(tmp_path / "images", 7, dataset="/data/shades")
    entries = {entry.kind: entry for entry in cache_entries()}
    assert set(entries) == {"images", "hashes"}
    images = entries["images"]
    assert (images.dataset, images.name) == ("/data/shades", store.path.stem)
    assert images.bytes == sum(path.stat().st_size for path in images.paths) > 64 * 64 * 3
    assert abs(images.last_used - time.time()) < 60


def test_damaged_entries_are_listed_and_removed(cache: Path) -> None:
    (cache / "images").mkdir(parents=True)
    for name, content in (("a.json", b"{"), ("b.json", b"[1]"), ("c.json", b"\xff")):
        (cache / "images" / name).write_bytes(content)
    (cache / "images" / "d.npy").symlink_to("nowhere")
    (cache / "copies").write_bytes(b"a file instead of a folder")
    entries = cache_entries()
    assert [(entry.name, entry.dataset) for entry in sorted(entries, key=lambda entry: entry.name)] == [
        (name, "") for name in "abcd"
    ]
    assert all(map(remove_entry, entries)) and list((cache / "images").iterdir()) == []
