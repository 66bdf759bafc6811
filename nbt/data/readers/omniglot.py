"""Reads Omniglot's published small background set 1 (Lake, Salakhutdinov and Tenenbaum 2015): zip or unpacked folder.

The archive is unpacked into the cache at the first use, and refused if it holds anything but characters.
"""

from __future__ import annotations

import functools
import hashlib
import re
import stat
import zipfile
from pathlib import Path

from nbt.data.download import extract_members, move_into_place, temporary_folder
from nbt.data.image_files import LabelledFile, image_files, subfolders
from nbt.errors import NbtError, UsageError, one_line_message
from nbt.paths import cache_folder
from nbt.progress import Progress

FOLDER = "images_background_small1"
ARCHIVES = ("omniglot_small1.zip", f"{FOLDER}.zip")

_MEMBER_PATTERN = re.compile(rf"{FOLDER}/(?:[^/\\:]+/(?:character\d+/(?:\d+_\d+\.png)?)?)?")
_MAX_IMAGE_BYTES = 100_000
_MAX_MEMBERS = 10_000


def find_small_omniglot(data_dir: Path) -> Path:
    """Returns the folder of alphabets or the archive: `data_dir` itself, or inside it.

    Raises:
        UsageError: `data_dir` contains neither.
    """
    candidates = (data_dir / FOLDER, *(data_dir / name for name in ARCHIVES), data_dir)
    for path in candidates:
        if path.is_file() or (path.name == FOLDER and path.is_dir()):
            return path
    raise UsageError(f"--data-dir {data_dir}: no {ARCHIVES[0]} in it, nor {ARCHIVES[1]}, nor the folder {FOLDER}/")


def read_small_omniglot(location: Path, *, progress: Progress | None = None) -> list[LabelledFile]:
    """Lists the images of the set, with one class per character, e.g. "Greek/character01".

    Args:
        location: Folder or archive, from `find_small_omniglot`.
        progress: Called with the number of unpacked members.

    Raises:
        NbtError: The archive is damaged or holds something unexpected; nothing was written.
    """
    folder = _unpack_to_cache(location, progress) if location.is_file() else location
    characters = [character for alphabet in subfolders(folder) for character in subfolders(alphabet)]
    names = {character: f"{character.parent.name}/{character.name}" for character in characters}
    return [LabelledFile(path, names[character], "") for character in characters for path in image_files(character)]


def _unpack_to_cache(archive: Path, progress: Progress | None) -> Path:
    """Returns the unpacked folder in the cache, under the hash of the archive."""
    cache = cache_folder("datasets", "omniglot-small")
    target = cache / hashlib.sha256(archive.read_bytes()).hexdigest()[:20]
    if not target.is_dir():
        with temporary_folder(cache) as temporary:
            unpack_characters(archive, temporary / "unpacked", progress=progress)
            try:
                move_into_place(temporary / "unpacked", target)
            except NbtError:
                if not target.is_dir():  # else another process was faster
                    raise
    return target / FOLDER


def unpack_characters(archive: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpacks the archive of the small set.

    All members are checked before anything is written.

    Args:
        archive: A zip file.
        folder: Target folder; it is created.
        progress: Called with the number of unpacked members.

    Raises:
        NbtError: The archive is damaged, or a member is a link, too large, or not of the form alphabet/character/image.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            for member in members:
                _check_member(archive, member)
            if not 0 < len(members) <= _MAX_MEMBERS:
                raise NbtError(f"{archive}: {len(members)} members, which the small Omniglot set does not have")
            extract_members(functools.partial(file.extract, path=folder), members, folder, progress)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise NbtError(f"{archive} cannot be unpacked ({one_line_message(error, 200)})") from error


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    parts = member.filename.split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    is_regular = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    if not _MEMBER_PATTERN.fullmatch(member.filename) or ".." in parts or not is_regular:
        raise NbtError(
            f"{archive} holds {member.filename!r}, which is not part of the small Omniglot set: nothing was unpacked"
        )
    if member.file_size > _MAX_IMAGE_BYTES:
        raise NbtError(f"{archive}: {member.filename!r} has {member.file_size} bytes: nothing was unpacked")
