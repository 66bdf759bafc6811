"""The small Omniglot set: located, unpacked once, and refused if its archive holds other files."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from nbt.data.catalog import dataset_spec
from nbt.data.readers import omniglot
from nbt.data.readers.omniglot import FOLDER, unpack_characters
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve
from nbt.errors import NbtError, UsageError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (105, 105), 1).save(buffer, "PNG")
    return buffer.getvalue()


def members() -> dict[str, bytes]:
    names = [
        f"{FOLDER}/{a}/character0{c}/0{c}_0{i}.png" for a in ("Greek", "Latin_(1)") for c in (2, 1) for i in (1, 2)
    ]
    return {f"{FOLDER}/": b"", f"{FOLDER}/Greek/": b"", **dict.fromkeys(names, png())}


def pack(path: Path, more: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, body in {**members(), **(more or {})}.items():
            file.writestr(name, body)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["omniglot_small1.zip", "images_background_small1.zip"])
def test_an_archive_is_unpacked_once_and_read(
    tmp_path: Path, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / name)
    calls: list[tuple[str, int, int]] = []
    listing = read_dataset(resolve("omniglot-small", tmp_path), progress=lambda *call: calls.append(call))
    assert listing.class_names == (
        *("Greek/character01", "Greek/character02"),
        *("Latin_(1)/character01", "Latin_(1)/character02"),
    )
    assert listing.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set(listing.roles.tolist()) == {""}
    assert all(isinstance(path, Path) and path.is_relative_to(cache) for path in listing.items)
    assert calls == [("unpacking", 10, 10)]
    monkeypatch.setattr(omniglot, "unpack_characters", None)
    assert read_dataset(resolve("omniglot-small", tmp_path)).digest() == listing.digest()


def test_an_unpacked_folder_is_read_in_place(tmp_path: Path, cache: Path) -> None:
    unpack_characters(pack(tmp_path / "a.zip"), tmp_path / "data")
    for place in (tmp_path / "data", tmp_path / "data" / FOLDER):
        listing = read_dataset(resolve("omniglot-small", place))
        assert len(listing) == 8
        assert all(isinstance(path, Path) and path.is_relative_to(tmp_path / "data") for path in listing.items)
    assert not cache.exists()


UNEXPECTED = [
    "../outside.png",
    f"{FOLDER}/../../outside.png",
    "/etc/outside.png",
    "C:/outside.png",
    f"{FOLDER}/Greek/character01/../../../outside.png",
    f"{FOLDER}/Greek/../character01/0001_01.png",
    f"{FOLDER}/Greek/character01/run.sh",
    f"{FOLDER}/readme.txt",
    f"{FOLDER}/..\\outside/character01/0001_01.png",
    "__MACOSX/x",
]


@pytest.mark.parametrize("name", UNEXPECTED)
def test_an_archive_with_other_members_is_refused_before_writing(tmp_path: Path, cache: Path, name: str) -> None:
    pack(tmp_path / "omniglot_small1.zip", {name: b"x"})
    before = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(cache))
    with pytest.raises(NbtError, match="is not part of the small Omniglot set: nothing was unpacked"):
        read_dataset(resolve("omniglot-small", tmp_path))
    assert sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(cache)) == before
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{FOLDER}/Greek/character01/0001_09.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(pack(tmp_path / "a.zip"), "a") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(NbtError, match="nothing was unpacked"):
        unpack_characters(tmp_path / "a.zip", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_oversized_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {f"{FOLDER}/Greek/character01/0001_09.png": b"\0" * 200_000})
    with pytest.raises(NbtError, match="200000 bytes: nothing was unpacked"):
        unpack_characters(tmp_path / "a.zip", tmp_path / "data")
    body = pack(tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(body[: len(body) // 2])
    with pytest.raises(NbtError, match="cannot be unpacked"):
        unpack_characters(tmp_path / "b.zip", tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "c.zip", "w"):
        pass
    with pytest.raises(NbtError, match="0 members"):
        unpack_characters(tmp_path / "c.zip", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_small_omniglot_requires_a_data_dir(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"give --data-dir DIR with DIR/omniglot_small1\.zip"):
        resolve("omniglot-small")
    with pytest.raises(UsageError, match=r"no omniglot_small1\.zip in it"):
        resolve("omniglot-small", tmp_path)


def test_the_published_set_agrees_with_the_catalog(shared: Path) -> None:
    listing = read_dataset(resolve("omniglot-small", shared / "data"))
    spec = dataset_spec("omniglot-small")
    assert (len(listing.class_names), len(listing)) == (spec.classes, spec.images)
    assert {name.split("/")[0] for name in listing.class_names} == {
        *("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    }
    assert all((listing.labels == label).sum() == 20 for label in range(136))
