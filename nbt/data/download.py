"""Downloads and unpacks archives completely and verified, or not at all, and never outside the target folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from nbt._version import __version__
from nbt.errors import NbtError, one_line_message
from nbt.files import atomic_file
from nbt.progress import Progress

TIMEOUT_SECONDS = 60.0
"""Seconds without an answer or data after which a download is aborted."""

_CHUNK_BYTES = 1 << 20


def fetch_archive(url: str, md5: str, folder: Path, content: str, *, progress: Progress | None = None) -> Path:
    """Downloads a tar archive, verifies it, and unpacks one folder of it.

    Args:
        url: Address of the archive.
        md5: MD5 checksum of the archive, hexadecimal.
        folder: Parent folder of the unpacked `content`.
        content: Name of the top-level folder in the archive that is kept; the rest of the archive is discarded.
        progress: Called with the number of received bytes, then with the number of unpacked members.

    Returns:
        `folder / content`.

    Raises:
        NbtError: The archive cannot be downloaded or unpacked, lacks `content`, has a wrong checksum or is unsafe. No
            partial data is left.
    """
    with temporary_folder(folder) as temporary:
        archive = temporary / "archive"
        download(url, archive, md5=md5, progress=progress)
        unpack_tar(archive, temporary / "unpacked", progress=progress)
        content_folder = temporary / "unpacked" / content
        if not content_folder.is_dir():
            raise NbtError(f"{url} does not hold {content}/")
        target = folder / content
        if target.exists():  # an incomplete copy, or one that another process has just created
            target.rename(temporary / "replaced")
        return move_into_place(content_folder, target)


def download(url: str, target: Path, *, md5: str, progress: Progress | None = None) -> None:
    """Downloads a file.

    Args:
        url: Address of the file.
        target: Path of the file, which appears only when it is complete and verified.
        md5: MD5 checksum, hexadecimal. It detects damage; protection from tampering is left to HTTPS.
        progress: Called with the number of received bytes.

    Raises:
        NbtError: The download fails or is incomplete, or the checksum differs.
    """
    request = urllib.request.Request(url, headers={"User-Agent": f"nbt/{__version__}"})
    description = f"downloading {PurePosixPath(url).name}"
    try:
        with atomic_file(target) as temporary:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, temporary.open("wb") as file:
                length = response.headers.get("Content-Length", "")
                total = int(length) if length.isdecimal() else 0
                checksum, received = _copy_and_hash(
                    response, file, lambda done: progress and progress(description, done, total)
                )
            if total and received != total:
                raise NbtError(f"{url} broke off after {received} of {total} bytes; try again")
            if checksum != md5:
                raise NbtError(f"{url} has the checksum {checksum}, expected {md5}; it is damaged or was replaced")
    except (OSError, http.client.HTTPException) as error:
        raise NbtError(f"{url} cannot be downloaded ({_error_reason(error)})") from error


def unpack_tar(archive: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpacks the files and folders of a tar archive, compressed or not.

    All members are checked before anything is written.

    Args:
        archive: The archive file.
        folder: Target folder; it is created.
        progress: Called with the number of unpacked members.

    Raises:
        NbtError: The file is not a tar archive or is damaged, or a member has an absolute path, leads out of the
            folder, or is neither a file nor a folder.
    """
    # Python before 3.11.4 has no extraction filters; _check_member is stricter than they are.
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                _check_member(member)
            extract_members(functools.partial(tar.extract, path=folder, **options), members, folder, progress)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise NbtError(f"the archive cannot be unpacked ({_error_reason(error)})") from error


def extract_members(
    extract: Callable[[Any], object], members: Sequence[Any], folder: Path, progress: Progress | None
) -> None:
    """Creates a folder and extracts the members of an archive to it.

    Args:
        extract: Extracts a member to the folder.
        members: The members, which were checked before.
        folder: Target folder.
        progress: Called with the number of unpacked members.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for done, member in enumerate(members, start=1):
        extract(member)
        if progress and (done % 100 == 0 or done == len(members)):
            progress("unpacking", done, len(members))


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Creates a temporary folder inside `parent`, and removes it on exit.

    It is on the same file system as `parent`, so that its contents can be renamed into place.

    Raises:
        NbtError: The folder cannot be created.
    """
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".nbt-", suffix=".tmp", dir=parent))
    except OSError as error:
        raise NbtError(f"{parent} cannot be written to ({_error_reason(error)})") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_into_place(source: Path, target: Path) -> Path:
    """Renames a file or folder, and returns `target`.

    Raises:
        NbtError: The target is an existing folder, or cannot be written.
    """
    if target.is_dir():
        raise NbtError(f"{target} exists, but is not complete; remove or rename it and try again")
    try:
        source.replace(target)
    except OSError as error:
        raise NbtError(f"{target} cannot be written ({_error_reason(error)})") from error
    return target


def _copy_and_hash(source: IO[bytes], target: IO[bytes], on_received: Callable[[int], object]) -> tuple[str, int]:
    """Copies a stream, and returns its MD5 checksum and its number of bytes."""
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        received += len(chunk)
        on_received(received)
    return digest.hexdigest(), received


def _check_member(member: tarfile.TarInfo) -> None:
    path = PureWindowsPath(member.name)  # recognises "/", "\\" and drive letters on every system
    if path.anchor or ".." in path.parts:
        raise NbtError(f"the archive is not safe: {member.name!r} would be written outside its folder")
    if not (member.isfile() or member.isdir()):
        raise NbtError(f"the archive is not safe: {member.name!r} is a link or a device")


def _error_reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return one_line_message(error, 200)
