"""Finds what travels beside the code (search spaces, studies) and where caches live."""

from __future__ import annotations

import os
from pathlib import Path

from nbt.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def bundled_folder(name: str) -> Path:
    """Returns the folder `name` ("search_spaces", "studies") of an installed wheel or of a checkout.

    Raises:
        FileNotFoundError: The installation is damaged: the folder is in neither place.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}/ is neither inside nor beside the nbt package; reinstall nbt-transfer")


def cache_folder(*parts: str) -> Path:
    """Returns a folder under the user's cache (`$NBT_CACHE`, else `$XDG_CACHE_HOME/nbt`, else `~/.cache/nbt`).

    It holds only what can be made again: decoded images, downloads, sources pretrained here. It is created.
    """
    root = os.environ.get("NBT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbt"
    folder = Path(root).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_writable_folder(name: str, folder: str | Path) -> None:
    """Checks that a folder can be written, or made.

    Args:
        name: What the user calls it, "--out".
        folder: It, or where it is going to be.

    Raises:
        UsageError: A file is in the way, or the folder (its nearest parent that exists) must not be written.
    """
    _check_writable(f"{name} {folder}", Path(folder))


def check_writable_file(name: str, file: str | Path) -> None:
    """Checks that a file can be written, its folder made.

    Args:
        name: What the user calls it, "--out".
        file: It, or where it is going to be.

    Raises:
        UsageError: As `check_writable_folder` for its folder; or it is a folder.
    """
    path = Path(file)
    if os.path.isdir(path):  # noqa: PTH112 - pathlib raises where it must not look
        raise UsageError(f"{name} {file}: that is a folder; give the name of a file")
    _check_writable(f"{name} {file}", path.parent)


def _check_writable(given: str, folder: Path) -> None:
    path = folder.absolute()
    # A link that leads nowhere is in the way, too.
    found = next(one for one in (path, *path.parents) if os.path.lexists(one) or one == one.parent)
    if not os.path.isdir(found):  # noqa: PTH112 - pathlib raises where it must not look
        raise UsageError(f"{given}: {found} is no folder; give another place, or move it away")
    if not os.access(found, os.W_OK | os.X_OK):
        raise UsageError(f"{given}: {found} cannot be written; give another place")


def absolute_path(text: str | Path) -> Path:
    """Returns a path that a user gave as an absolute one, "~" and ".." resolved, with the names of links kept."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - pathlib raises at "~nobody"
