from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nbt.data.readers import cub
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.errors import NbtError, UsageError
from tests.data.pictures import pack, save_cub, serve


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets" / "cub"


def test_classes_are_ordered_by_id_with_the_official_split(tmp_path: Path) -> None:
    folder = save_cub(tmp_path, classes=3, images=4)
    with (folder / "classes.txt").open("a") as file:
        file.write("4 004.Never_Seen\n")
    names, rows = cub.read_cub(folder)
    assert names == ["001.Bird_1", "002.Bird_2", "003.Bird_3"]
    assert [row.split for row in rows] == ["train", "test"] * 6
    assert rows[5].path == folder / "images" / "002.Bird_2" / "1.jpg"
    assert rows[5].label == "002.Bird_2"


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("images", "3 001", "3", "images.txt, line 3: expected an id, a space and a value"),
        ("images", "2 001", "1 001", "images.txt, line 2: the id is given twice"),
        ("image_class_labels", "5 2\n", "", r"image_class_labels.txt: no line for image 5"),
        ("image_class_labels", "5 2\n", "5 9\n", "classes.txt: no line for class 9 of image 5"),
        ("train_test_split", "5 1\n", "", "train_test_split.txt: no line for image 5"),
        ("train_test_split", "5 1\n", "5 2\n", "image 5 has '2', expected 0 or 1"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, table: str, old: str, new: str, message: str) -> None:
    path = save_cub(tmp_path) / f"{table}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        cub.read_cub(tmp_path)


def test_blank_lines_are_ignored_and_undecodable_bytes_refused(tmp_path: Path) -> None:
    path = save_cub(tmp_path) / "classes.txt"
    path.write_text(path.read_text() + "\n\n")
    assert len(cub.read_cub(tmp_path)[0]) == 3
    path.write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(UsageError, match=r"classes\.txt: cannot be read"):
        cub.read_cub(tmp_path)


def test_the_dataset_is_downloaded_verified_and_then_cached(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(save_cub(tmp_path / cub.FOLDER))
    monkeypatch.setattr(cub, "MD5", hashlib.md5(archive).hexdigest())
    calls: list[tuple[str, int, int]] = []
    with serve({"/CUB_200_2011.tgz": archive}) as address:
        monkeypatch.setattr(cub, "URL", f"{address}/CUB_200_2011.tgz")
        listing = read_dataset(resolve("cub"), progress=lambda *call: calls.append(call))
    assert (len(listing), listing.class_names[0]) == (12, "001.Bird_1")
    assert calls[0][0] == "downloading CUB_200_2011.tgz" and calls[0][2] == len(archive)
    assert [path.name for path in cache.iterdir()] == [cub.FOLDER]
    monkeypatch.setattr(cub, "URL", "http://127.0.0.1:1/gone")
    assert len(read_dataset(resolve("cub"))) == 12


def test_a_damaged_copy_in_the_cache_is_replaced(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(save_cub(tmp_path / cub.FOLDER))
    monkeypatch.setattr(cub, "MD5", hashlib.md5(archive).hexdigest())
    (cache / cub.FOLDER).mkdir(parents=True)
    (cache / cub.FOLDER / "images.txt").write_text("1 x.jpg\n")
    with serve({"/c.tgz": archive}) as address:
        monkeypatch.setattr(cub, "URL", f"{address}/c.tgz")
        assert len(read_dataset(resolve("cub"))) == 12
    assert [path.name for path in cache.iterdir()] == [cub.FOLDER]


def test_without_a_connection_the_message_names_data_dir(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cub, "URL", "http://127.0.0.1:1/CUB_200_2011.tgz")
    with pytest.raises(NbtError, match=r"no connection.*--data-dir CUB_200_2011") as error:
        read_dataset(resolve("cub"))
    assert error.value.exit_code == 1
    assert list(cache.iterdir()) == []


def test_an_archive_without_the_dataset_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(save_cub(tmp_path / "OTHER"))
    monkeypatch.setattr(cub, "MD5", hashlib.md5(archive).hexdigest())
    with serve({"/c.tgz": archive}) as address:
        monkeypatch.setattr(cub, "URL", f"{address}/c.tgz")
        with pytest.raises(NbtError, match="does not hold CUB_200_2011/"):
            read_dataset(resolve("cub"))
    assert list(cache.iterdir()) == []


def test_the_subset_of_50_classes(shared: Path) -> None:
    listing = read_dataset(resolve("cub", shared / "data"))
    assert (len(listing), len(listing.class_names)) == (2952, 50)
    assert [(listing.roles == role).sum() for role in ("train", "val", "test")] == [1500, 0, 1452]
