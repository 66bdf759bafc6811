from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nbt.data import image_store
from nbt.data.image_store import ImageStore, decode_images
from nbt.errors import NbtError
from tests.data.pictures import gradient, save_image


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [save_image(tmp_path / "data" / f"{number:02d}.png", shade=3 * number) for number in range(40)]


@pytest.fixture
def damaged(files: list[Path]) -> list[Path]:
    files[3].write_bytes(b"no image")
    files[21].write_bytes(files[21].read_bytes()[:40])
    files[39].unlink()
    return files


def shades(store: ImageStore) -> list[int]:
    return [int(value) for value in store.array[:, 0, 0, 0]]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_store, "_decode", fail)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_decoded_images_are_in_the_order_of_the_files(
    cache: Path, files: list[Path], use_cache: bool, workers: int
) -> None:
    store, kept = decode_images(files, 8, cache=use_cache, workers=workers)
    assert (len(store), store.size, store.array.shape, store.array.dtype) == (40, 8, (40, 8, 8, 3), np.uint8)
    assert shades(store) == [3 * number for number in range(40)]
    assert kept.tolist() == list(range(40)) and kept.dtype == np.int64
    assert (store.path is not None) == use_cache and cache.exists() == use_cache
    assert store.nbytes == 40 * 8 * 8 * 3 and store.unreadable == ()


def test_cached_images_are_not_decoded_again(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = decode_images(files, 8)
    forbid_decoding(monkeypatch)
    second, _ = decode_images(files, 8)
    assert second.path == first.path
    np.testing.assert_array_equal(second.array, first.array)
    with pytest.raises(AssertionError, match="decoded again"):
        decode_images(files, 9)


def test_changed_files_and_other_selections_are_decoded(cache: Path, files: list[Path]) -> None:
    decode_images(files, 8)
    before = files[5].stat()
    save_image(files[5], shade=250)
    os.utime(files[5], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert shades(decode_images(files, 8)[0])[5] == 250
    assert len(decode_images(files[:7], 8)[0]) == 7


def test_a_moved_dataset_uses_the_same_cache(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decode_images(files, 8)
    files[0].parent.rename(files[0].parent.with_name("moved"))
    forbid_decoding(monkeypatch)
    moved = [path.parent.with_name("moved") / path.name for path in files]
    assert len(decode_images(moved, 8)[0]) == 40


@pytest.mark.parametrize("use_cache", [True, False])
def test_unreadable_images_are_named_counted_and_left_out(
    cache: Path, damaged: list[Path], use_cache: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # the second pass reads the cache, and warns again
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="nbt"):
            store, kept = decode_images(damaged, 8, cache=use_cache)
        assert kept.tolist() == [n for n in range(40) if n not in (3, 21, 39)]
        assert shades(store) == [3 * n for n in kept.tolist()]
        assert store.unreadable == tuple(str(damaged[n]) for n in (3, 21, 39))
        assert len(caplog.records) == 1
        assert caplog.messages[0].startswith(f"3 of 40 images cannot be read and are left out: {damaged[3]} (")


def test_of_many_unreadable_images_a_few_are_named(
    cache: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for path in files[1:]:
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="nbt"):
        assert decode_images(files, 8)[1].tolist() == [0]
    assert caplog.messages[0].endswith("and 34 more")


def test_the_store_is_empty_if_no_image_is_readable(cache: Path, files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")
    for use_cache in (True, True, False):
        store, kept = decode_images(files, 8, cache=use_cache)
        assert (store.array.shape, len(kept), len(store.unreadable)) == ((0, 8, 8, 3), 0, 40)


def truncate_array(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_header(path: Path) -> None:
    path.write_bytes(b"garbage" + path.read_bytes()[7:])


def damage_pixel(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1000] ^= 255
    path.write_bytes(body)


def empty_array(path: Path) -> None:
    path.write_bytes(b"")


def replace_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 8, 8, 3), np.uint8))


def damage_metadata(path: Path) -> None:
    path.with_suffix(".json").write_text('{"unreadable": [')


def remove_metadata(path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        truncate_array,
        damage_header,
        damage_pixel,
        empty_array,
        replace_shape,
        damage_metadata,
        remove_metadata,
        Path.unlink,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_cache_is_rebuilt(cache: Path, files: list[Path], damage: Any) -> None:
    whole = decode_images(files, 8)[0]
    assert whole.path is not None
    damage(whole.path)
    np.testing.assert_array_equal(decode_images(files, 8)[0].array, whole.array)
    np.testing.assert_array_equal(np.load(whole.path), whole.array)


def test_large_arrays_are_mapped(cache: Path, damaged: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(decode_images(damaged, 8)[0].array, np.memmap)
    monkeypatch.setattr(image_store, "MEMORY_LIMIT", 1000)
    store, _ = decode_images(damaged, 8)
    assert isinstance(store.array, np.memmap) and not store.array.flags.writeable
    assert shades(store)[:5] == [0, 3, 6, 12, 15]
    path = store.path
    assert path is not None
    truncate_array(path)
    assert shades(decode_images(damaged, 8)[0])[:5] == [0, 3, 6, 12, 15]


def test_arrays_are_scaled_and_cached_by_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.stack([gradient(8, 8), gradient(8, 8)[::-1]])
    store, kept = decode_images(pixels, 16)
    assert store.array.shape == (2, 16, 16, 3) and kept.tolist() == [0, 1]
    np.testing.assert_array_equal(decode_images(pixels, 8)[0].array, pixels)
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(decode_images(pixels.copy(), 16)[0].array, store.array)
    with pytest.raises(AssertionError, match="decoded again"):
        decode_images(pixels[::-1], 16)


def test_cached_images_are_pickled_as_a_path(cache: Path, files: list[Path]) -> None:
    store, _ = decode_images(files, 32)
    packed = pickle.dumps(store)
    assert len(packed) < 1000 < store.nbytes
    again = pickle.loads(packed)
    assert isinstance(again.array, np.memmap) and again.path == store.path
    np.testing.assert_array_equal(again.array, store.array)
    assert store.path is not None
    store.path.unlink()
    with pytest.raises(NbtError, match="missing or damaged"):
        pickle.loads(packed)


def test_another_process_maps_the_cached_images(cache: Path, files: list[Path], tmp_path: Path) -> None:
    store, _ = decode_images(files, 8)
    (tmp_path / "store.pickle").write_bytes(pickle.dumps(store))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'store.pickle')!r}, 'rb')).array[:, 0, 0, 0].sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(shades(store))


def test_a_selection_is_pickled_with_its_pixels(cache: Path, damaged: list[Path]) -> None:
    store, _ = decode_images(damaged, 8)
    few = ImageStore(store.array[[5, 0]], unreadable=store.unreadable)
    again = pickle.loads(pickle.dumps(few))
    assert shades(again) == shades(few) == [shades(store)[5], shades(store)[0]]
    assert again.unreadable == store.unreadable and again.path is None


def test_a_store_holds_square_rgb_bytes_only() -> None:
    for array in (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="expected uint8"):
            ImageStore(array)


def test_progress_rises_to_the_number_of_images(cache: Path, files: list[Path]) -> None:
    calls: list[tuple[str, int, int]] = []
    decode_images(files, 8, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("decoding images", 40, 40)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    calls.clear()
    decode_images(files, 8, progress=lambda *call: calls.append(call))
    assert calls == []


def test_concurrent_builds_agree(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(4)
    original = image_store._write_cache

    def write_together(*arguments: Any) -> None:
        barrier.wait(timeout=30)
        original(*arguments)

    monkeypatch.setattr(image_store, "_write_cache", write_together)
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(shades(decode_images(files, 8)[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[3 * number for number in range(40)]] * 4
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_a_full_disk_raises_and_leaves_no_file(cache: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_store, "_write_rows", no_space)
    with pytest.raises(NbtError, match=r"No space left on device.*NBT_CACHE.*--image-size"):
        decode_images(files, 8)
    assert list(cache.iterdir()) == []


def test_an_interrupted_build_leaves_no_file(cache: Path, files: list[Path]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_images(files, 8, progress=interrupt)
    assert list(cache.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbt-decode")]


def test_stale_temporary_files_are_removed_after_a_day(cache: Path, files: list[Path]) -> None:
    cache.mkdir(parents=True)
    old, young = cache / ".old.1-1.tmp", cache / ".young.1-1.tmp"
    for path, age in ((old, 2 * 86400), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    decode_images(files, 8)
    assert not old.exists() and young.exists()


def test_the_metadata_hold_the_reasons_for_unreadable_images(cache: Path, damaged: list[Path]) -> None:
    path = decode_images(damaged, 8)[0].path
    assert path is not None
    metadata = json.loads(path.with_suffix(".json").read_text())
    assert [index for index, _ in metadata["unreadable"]] == [3, 21, 39]
    assert "damaged, or not an image" in metadata["unreadable"][0][1] and "No such file" in metadata["unreadable"][2][1]


class TestValueRanges:
    @staticmethod
    def save(folder: Path, *images: np.ndarray) -> list[Path]:
        paths = [folder / f"{number}.tif" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        return paths

    @staticmethod
    def count_decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
        counts = [0]
        original = image_store._decode

        def decode(*arguments: Any) -> Any:
            counts[0] += 1
            return original(*arguments)

        monkeypatch.setattr(image_store, "_decode", decode)
        return counts

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_the_bits_in_use_over_all_images_become_8_bits(self, cache: Path, tmp_path: Path, use_cache: bool) -> None:
        images = [np.full((8, 8), value, np.uint16) for value in (0, 1000, 2048, 4095)]
        for _ in range(2):  # the second time from the cache
            store, _ = decode_images(self.save(tmp_path, *images), 8, cache=use_cache)
            assert store.value_ranges == {"uint16": (0, 4095)}
            assert shades(store) == [0, 62, 128, 255]
            assert [facts.high for facts in store.facts] == [0, 1000, 2048, 4095]

    def test_other_images_are_not_scaled(self, cache: Path, tmp_path: Path) -> None:
        images = [np.full((8, 8), 1000, np.uint16), np.full((8, 8), 77, np.uint8), np.full((8, 8), 0.5, np.float32)]
        store, _ = decode_images(self.save(tmp_path, *images), 8)
        assert (shades(store), store.value_ranges) == ([249, 77, 128], {"uint16": (0, 1023), "float": (0, 1)})

    def test_only_values_of_an_unusual_range_are_decoded_twice(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = self.count_decodings(monkeypatch)
        full = self.save(tmp_path, np.full((8, 8), 65535, np.uint16), np.full((8, 8), 20, np.uint16))
        assert shades(decode_images(full, 8)[0]) == [255, 0] and counts == [2]
        decode_images(full, 8)
        assert counts == [2]
        few = self.save(tmp_path, np.full((8, 8), 511, np.uint16), np.full((8, 8), 20, np.uint16))
        assert shades(decode_images(few, 8)[0]) == [255, 10] and counts == [6]
        decode_images(few, 8)
        assert counts == [6]

    def test_an_interrupted_second_pass_is_made_up_for(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = self.save(tmp_path, np.full((8, 8), 511, np.uint16))
        with monkeypatch.context() as patch:
            patch.setattr(image_store, "find_value_ranges", lambda _: {"uint16": (0.0, 65535.0)})
            assert shades(decode_images(paths, 8)[0]) == [2]
        assert shades(decode_images(paths, 8)[0]) == [255]

    def test_given_ranges_are_used(self, tmp_path: Path) -> None:
        paths = self.save(tmp_path, np.full((8, 8), 100, np.uint16), np.full((8, 8), 5000, np.uint16))
        store, _ = decode_images(paths, 8, cache=False, value_ranges={"uint16": (0, 4095)})
        assert (shades(store), store.value_ranges) == ([6, 255], {"uint16": (0, 4095)})
        # A model of an earlier version has no ranges.
        assert shades(decode_images(paths, 8, cache=False, value_ranges={})[0]) == [0, 19]

    def test_ranges_are_pickled(self, cache: Path, tmp_path: Path) -> None:
        paths = self.save(tmp_path, np.full((8, 8), 511, np.uint16))
        for use_cache in (True, False):
            store = decode_images(paths, 8, cache=use_cache)[0]
            assert pickle.loads(pickle.dumps(store)).value_ranges == {"uint16": (0, 511)}
            assert store.in_file(tmp_path / "copy").value_ranges == {"uint16": (0, 511)}


class TestInFile:
    def test_a_store_with_a_cache_file_is_used_as_it_is(self, cache: Path, files: list[Path], tmp_path: Path) -> None:
        store, _ = decode_images(files, 8)
        assert store.in_file(tmp_path / "shared") is store
        assert not (tmp_path / "shared").exists()

    @pytest.mark.parametrize("use_cache", [False, True])
    def test_other_stores_are_written(self, cache: Path, damaged: list[Path], tmp_path: Path, use_cache: bool) -> None:
        store, _ = decode_images(damaged, 8, cache=use_cache)
        if store.path is not None:
            store.path.unlink()  # the user has emptied the cache
        shared = store.in_file(tmp_path / "shared")
        assert shared.path == tmp_path / "shared" / "images.npy"
        copy = pickle.loads(pickle.dumps(shared))
        for other in (shared, copy):
            assert isinstance(other.array, np.memmap) and other.array.filename == str(shared.path)
            np.testing.assert_array_equal(other.array, store.array)
            assert other.unreadable == store.unreadable

    def test_a_full_disk_is_an_error_with_a_remedy(
        self, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        store, _ = decode_images(files, 8, cache=False)
        monkeypatch.setattr(np, "save", full)
        with pytest.raises(NbtError, match=r"No space left on device.*TMPDIR.*--workers 1"):
            store.in_file(tmp_path)
