"""Paths: the folders that are installed with the package, the cache, and checks of the paths that users give."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from nbt.errors import NbtError, UsageError

_PACKAGE = Path(__file__).resolve().parent


def bundled_folder(name: str) -> Path:
    """Returns the folder `name` ("search_spaces", "studies") of an installed wheel or of a checkout.

    Raises:
        FileNotFoundError: The folder is missing, so the installation is damaged.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}/ is neither inside the nbt package nor next to it; reinstall nbt-transfer")


def cache_root() -> Path:
    """Returns the user's cache (`$NBT_CACHE`, else `$XDG_CACHE_HOME/nbt`, else `~/.cache/nbt`), which may not exist."""
    return Path(os.environ.get("NBT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbt")


def cache_folder(*parts: str) -> Path:
    """Creates and returns a folder in the user's cache, see `cache_root`.

    The cache holds only data that can be recreated: decoded images, downloads and source models pretrained by nbt.

    Raises:
        NbtError: The folder cannot be created.
    """
    folder = cache_root().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        existing = nearest_existing(folder)
        is_folder = os.path.isdir(existing)  # noqa: PTH112 - pathlib raises where it lacks permission
        reason = f"{folder}: {error.strerror}" if is_folder else f"{existing} is no folder"
        raise NbtError(f"the cache cannot be written ({reason}); set NBT_CACHE to a writable folder") from error
    return folder


def check_writable_folder(name: str, folder: str | Path) -> None:
    """Checks that a folder can be written to, or created.

    Args:
        name: Name of the folder in messages, e.g. "--out".
        folder: The folder, which need not exist yet.

    Raises:
        UsageError: A file is in the way, or the folder (or its nearest existing parent) is not writable.
    """
    _check_writable(f"{name} {folder}", Path(folder))


def check_outside(name: str, folder: str | Path, dataset: str | Path | None) -> None:
    """Checks that a folder is not inside the folder of a dataset, into which nothing is written.

    Args:
        name: Name of the folder in messages, e.g. "--out".
        folder: The folder, which need not exist yet.
        dataset: Absolute path of the dataset; a name or a file has no inside.

    Raises:
        UsageError: The folder is inside that of the dataset.
    """
    if dataset is None or not os.path.isabs(dataset) or not os.path.isdir(dataset):  # noqa: PTH112, PTH117
        return
    if Path(folder).resolve().is_relative_to(Path(dataset).resolve()):
        raise UsageError(f"{name} {folder}: is inside the dataset {dataset}, into which nbt never writes; give another")


def check_writable_file(name: str, file: str | Path) -> None:
    """Checks that a file can be written, and that its folder exists or can be created.

    Args:
        name: Name of the file in messages, e.g. "--out".
        file: The file, which need not exist yet.

    Raises:
        UsageError: The path is a folder, or its folder fails `check_writable_folder`.
    """
    path = Path(file)
    if os.path.isdir(path):  # noqa: PTH112 - pathlib raises where it lacks permission
        raise UsageError(f"{name} {file}: that is a folder; give the name of a file")
    _check_writable(f"{name} {file}", path.parent)


def _check_writable(label: str, folder: Path) -> None:
    existing = nearest_existing(folder)
    if not os.path.isdir(existing):  # noqa: PTH112 - pathlib raises where it lacks permission
        raise UsageError(f"{label}: {existing} is no folder; give another path, or move it away")
    try:
        # `os.access` says yes to the superuser, also where no file can be created.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"{label}: {existing} cannot be written ({error.strerror}); give another path") from error


def nearest_existing(folder: Path) -> Path:
    """Returns the folder or its nearest existing parent; a dangling link exists, because it is in the way."""
    path = folder.absolute()
    return next(parent for parent in (path, *path.parents) if os.path.lexists(parent) or parent == parent.parent)


def absolute_path(text: str | Path) -> Path:
    """Returns the absolute form of a user's path, with "~" and ".." resolved and symbolic links kept."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - pathlib raises at "~nobody"
