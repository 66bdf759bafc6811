from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from nbt.data.download import download, temporary_folder, unpack_tar
from nbt.errors import NbtError
from tests.data.pictures import serve


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def archive_of(folder: Path, *members: tarfile.TarInfo) -> Path:
    """Writes an archive with one regular file, followed by further members."""
    path = folder / "archive.tar.gz"
    regular = tarfile.TarInfo("folder/file.txt")
    regular.size = 4
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(regular, io.BytesIO(b"text"))
        for member in members:
            tar.addfile(member, io.BytesIO(b"data"[: member.size]))
    return path


def unsafe_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    member.size = 4 if kind == tarfile.REGTYPE else 0
    return member


def test_a_download_is_complete_and_reports_progress(tmp_path: Path) -> None:
    body = bytes(range(256)) * 9000
    calls: list[tuple[str, int, int]] = []
    with serve({"/d/data.bin": body}) as address:
        download(f"{address}/d/data.bin", tmp_path / "x", md5=md5(body), progress=lambda *call: calls.append(call))
    assert (tmp_path / "x").read_bytes() == body
    assert calls[-1] == ("downloading data.bin", len(body), len(body))
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})


def test_a_wrong_checksum_raises_and_keeps_the_existing_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"earlier")
    with serve({"/data": b"other"}) as address, pytest.raises(NbtError, match=f"checksum {md5(b'other')}, expected"):
        download(f"{address}/data", tmp_path / "x", md5=md5(b"wanted"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"earlier"


def test_an_incomplete_download_raises(tmp_path: Path) -> None:
    body = b"half of it"
    with (
        serve({"/data": body}, announced_lengths={"/data": 20}) as address,
        pytest.raises(NbtError, match="10 of 20 bytes"),
    ):
        download(f"{address}/data", tmp_path / "x", md5=md5(body))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with serve({}) as address, pytest.raises(NbtError, match="HTTP 404"):
        download(f"{address}/data", tmp_path / "x", md5="")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    unpack_tar(archive_of(tmp_path), tmp_path / "out", progress=lambda *call: calls.append(call))
    assert (tmp_path / "out" / "folder" / "file.txt").read_bytes() == b"text"
    assert calls == [("unpacking", 1, 1)]


@pytest.mark.parametrize(
    "member",
    [
        unsafe_member("../outside.txt"),
        unsafe_member("folder/../../outside.txt"),
        unsafe_member("..\\outside.txt"),
        unsafe_member("/outside.txt"),
        unsafe_member("C:\\outside.txt"),
        unsafe_member("folder/link", tarfile.SYMTYPE, "/etc/passwd"),
        unsafe_member("folder/link", tarfile.SYMTYPE, "file.txt"),
        unsafe_member("folder/link", tarfile.LNKTYPE, "folder/file.txt"),
        unsafe_member("folder/device", tarfile.CHRTYPE),
        unsafe_member("folder/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_unsafe_archives_are_refused_before_anything_is_written(tmp_path: Path, member: tarfile.TarInfo) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = archive_of(inside, member)
    with pytest.raises(NbtError, match="the archive is not safe"):
        unpack_tar(archive, inside / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert [path.name for path in inside.iterdir()] == ["archive.tar.gz"]


def test_other_files_and_truncated_archives_raise(tmp_path: Path) -> None:
    whole = archive_of(tmp_path, unsafe_member("folder/more.bin")).read_bytes()
    for name, body in (("none", b"not an archive"), ("half", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(NbtError, match="cannot be unpacked"):
            unpack_tar(tmp_path / name, tmp_path / "out")


def test_a_temporary_folder_is_removed_after_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path) as folder:
        (folder / "half").write_text("written")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
