"""Finds what travels beside the code (search spaces, studies) and where caches live."""

from __future__ import annotations

import os
from pathlib import Path

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
