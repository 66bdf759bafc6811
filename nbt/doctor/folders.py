"""Folders that nbt writes to: whether they can be written, how much disk is free, and how large the caches are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nbt.cache import cache_limit
from nbt.doctor.diagnosis import OK, PROBLEM, WARNING, Diagnosis
from nbt.doctor.sizes import GIB, MIB, size_text
from nbt.errors import UsageError
from nbt.paths import cache_root

MIN_FREE = 500 * MIB
"""Free disk in bytes below which a search may fail."""

ENOUGH_FREE = 5 * GIB
"""Free disk in bytes below which decoded images of a large dataset may not fit."""


def check_folders(out: str | Path, free_bytes: Callable[[Path], int] | None = None) -> Iterator[Diagnosis]:
    """Yields whether the folders of reports, studies, cache and temporary files can be written to.

    Args:
        out: Folder of the reports.
        free_bytes: Returns the free disk of an existing folder in bytes; asks the system when None.
    """
    folders = {"reports": (Path(out), "--out"), "studies": (Path(".nbt"), "--storage and --tracking-uri")}
    temporary = Path(tempfile.gettempdir())
    folders |= {"cache": (cache_root(), "NBT_CACHE"), "temporary files": (temporary, "TMPDIR")}
    for name, (folder, option) in folders.items():
        yield _check_folder(name, folder, option, free_bytes or (lambda path: shutil.disk_usage(path).free))


def _check_folder(name: str, folder: Path, option: str, free_bytes: Callable[[Path], int]) -> Diagnosis:
    path = folder.absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        return Diagnosis(name, PROBLEM, f"{path} cannot be written ({reason})", f"give another folder with {option}")
    if name == "cache":
        try:
            cache_limit()
        except UsageError as error:
            return Diagnosis(name, PROBLEM, str(error), "set NBT_CACHE_LIMIT to a size, or unset it")
    free = free_bytes(existing)
    size = f" {size_text(folder_size(path))} used," if name == "cache" else ""
    status = OK if free >= ENOUGH_FREE else WARNING if free >= MIN_FREE else PROBLEM
    advice = "" if status == OK else f"free some disk, or give a folder on another one with {option}"
    return Diagnosis(name, status, f"{path},{size} {size_text(free)} free", advice)


def folder_size(folder: Path) -> int:
    """Returns the size of the files in a folder in bytes; files that disappear or cannot be read count as empty."""
    total = 0
    for file in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += 0 if file.is_symlink() or not file.is_file() else file.stat().st_size
        except OSError:
            continue
    return total
