"""Downloads archives: whole and verified, or not at all; nothing is written outside their folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from nbt._version import __version__
from nbt.errors import NbtError
from nbt.paths import cache_folder
from nbt.progress import Progress

TIMEOUT_SECONDS = 60.0
"""Seconds without an answer or data after which a download is given up."""

_CHUNK_BYTES = 1 << 20


def fetch_archive(url: str, md5: str, folder: Path, content: str, *, progress: Progress | None = None) -> Path:
    """Downloads a tar archive, verifies it, and unpacks one folder of it.

    Args:
        url: Where it is.
        md5: Its checksum, hexadecimal.
        folder: Where `content` goes; everything else in the archive is dropped.
        content: Name of the top folder in the archive.
        progress: Told of bytes received and members unpacked.

    Returns:
        `folder / content`.

    Raises:
        NbtError: It cannot be fetched, is not what it should be, or would write where it must not. Nothing is left.
    """
    with temporary_folder(folder) as place:
        archive = place / "archive"
        download(url, archive, md5=md5, progress=progress)
        unpack_tar(archive, place / "unpacked", progress=progress)
        found = place / "unpacked" / content
        if not found.is_dir():
            raise NbtError(f"{url} does not hold {content}/")
        target = folder / content
        if target.exists():  # a damaged one, or one that another process has just put there
            target.rename(place / "replaced")
        return move_into_place(found, target)


def download(url: str, target: Path, *, md5: str, progress: Progress | None = None) -> None:
    """Downloads a file.

    Args:
        url: Where it is.
        target: The file to write; it appears only when it is whole and verified.
        md5: Its checksum, hexadecimal. It guards against damage; against malice the transport does (https).
        progress: Told of the bytes received.

    Raises:
        NbtError: There is no connection, the answer is short, or the checksum is another.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    request = urllib.request.Request(url, headers={"User-Agent": f"nbt/{__version__}"})
    what = f"downloading {PurePosixPath(url).name}"
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer, temporary.open("wb") as file:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else 0
            found, received = _copy_and_hash(answer, file, lambda done: progress and progress(what, done, total))
        if total and received != total:
            raise NbtError(f"{url} broke off after {received} of {total} bytes; try again")
        if found != md5:
            raise NbtError(f"{url} has the checksum {found}, expected {md5}; it was damaged on the way or replaced")
        temporary.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise NbtError(f"{url} cannot be fetched ({_error_reason(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


def unpack_tar(archive: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpacks files and folders of a tar archive, compressed or not.

    Args:
        archive: The file.
        folder: Where to; it is created.
        progress: Told of the members unpacked.

    Raises:
        NbtError: It is no tar archive or a damaged one, or a member is absolute, leads out of the folder, or is
            neither file nor folder. Members are checked before anything is written.
    """
    # Python before 3.11.4 has no filters; then our own check stands alone, which is the stricter one.
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                _check_member(member)
            folder.mkdir(parents=True, exist_ok=True)
            for done, member in enumerate(members, start=1):
                tar.extract(member, folder, **options)  # type: ignore[arg-type]
                if progress and (done % 100 == 0 or done == len(members)):
                    progress("unpacking", done, len(members))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise NbtError(f"the archive cannot be unpacked ({_error_reason(error)})") from error


def make_cache_folder(*parts: str) -> Path:
    """Returns `cache_folder(*parts)`.

    Raises:
        NbtError: It cannot be made.
    """
    try:
        return cache_folder(*parts)
    except OSError as error:
        raise NbtError(f"the cache cannot be written ({error}); set NBT_CACHE to a folder of yours") from error


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Makes a folder inside `parent`, so that what is in it can be renamed into place, and removes it afterwards.

    Raises:
        NbtError: It cannot be made.
    """
    try:
        place = Path(tempfile.mkdtemp(prefix=".nbt-", suffix=".tmp", dir=parent))
    except OSError as error:
        raise NbtError(f"{parent} cannot be written to ({_error_reason(error)})") from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def move_into_place(source: Path, target: Path) -> Path:
    """Renames a file or folder, and returns `target`.

    Raises:
        NbtError: The target is a folder that exists.
    """
    if target.is_dir():
        raise NbtError(f"{target} exists, but is not complete; remove or rename it and try again")
    try:
        source.replace(target)
    except OSError as error:
        raise NbtError(f"{target} cannot be written ({_error_reason(error)})") from error
    return target


def _copy_and_hash(source: IO[bytes], target: IO[bytes], report: Callable[[int], object]) -> tuple[str, int]:
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        received += len(chunk)
        report(received)
    return digest.hexdigest(), received


def _check_member(member: tarfile.TarInfo) -> None:
    path = PureWindowsPath(member.name)  # which takes "/", "\\" and drives for what they are, as some system would
    if path.anchor or ".." in path.parts:
        raise NbtError(f"the archive is not safe: {member.name!r} would be written outside its folder")
    if not (member.isfile() or member.isdir()):
        raise NbtError(f"the archive is not safe: {member.name!r} is a link or a device")


def _error_reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return " ".join(str(error).split())[:200] or type(error).__name__
