"""Model folders on the disk: what is in one, and how one is replaced without touching anything else; without torch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbt.errors import UsageError
from nbt.paths import check_writable_folder
from nbt.settings import TransferSettings, repair

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILES = (CARD_FILE, WEIGHTS_FILE)
"""All that is in a model folder."""


def check_export(folder: str | Path, name: str = "export") -> Path:
    """Checks that a model can be written to a folder, and that nothing else is lost by it.

    Args:
        folder: Missing, empty, or a model folder, which is then replaced.
        name: What the user calls it, "--export".

    Returns:
        Its absolute path, links resolved.

    Raises:
        UsageError: It holds something else, it is the working directory or a mount point (neither can be replaced
            by another folder), or there it cannot be written.
    """
    path = Path(folder).resolve()
    check_writable_folder(name, folder)
    check_writable_folder(name, path.parent)
    found = sorted(one.name for one in path.iterdir()) if path.exists() else []
    others = [one for one in found if one not in MODEL_FILES or not (path / one).is_file()]
    if others or (found and CARD_FILE not in found):
        kept = ", ".join((others or found)[:3]) + (", ..." if len(others or found) > 3 else "")
        raise UsageError(
            f"{name} {folder}: {path} is no model folder, and a model would replace what it holds ({kept}); give a new "
            "or an empty folder"
        )
    if path == Path.cwd() or os.path.ismount(path):
        what = "the working directory" if path == Path.cwd() else "a mount point"
        raise UsageError(f"{name} {folder}: {path} is {what}; give a folder in it")
    return path


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which then becomes the model folder, whole or not at all; its parents are made.

    Args:
        folder: As for `check_export`.

    Raises:
        UsageError: As `check_export`; nothing is deleted then.
        OSError: It cannot be written.
    """
    path = check_export(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        check_export(path)
        for name in (WEIGHTS_FILE, CARD_FILE):  # the card last: as long as it is there, this is a model folder
            (path / name).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def was_trained_with(folder: Path, settings: TransferSettings) -> bool:
    """Tells whether a folder has a model that says it was trained with some settings."""
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        return TransferSettings.from_dict(card["settings"]) == repair(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
