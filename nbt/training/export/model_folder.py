"""Files of a model folder, and the safe replacement of one; independent of PyTorch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbt.errors import UsageError
from nbt.files import write_all
from nbt.paths import check_writable_folder
from nbt.settings import TransferSettings, repair

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILES = (CARD_FILE, WEIGHTS_FILE)
"""Names of all files in a model folder."""


def check_export(folder: str | Path, name: str = "export") -> Path:
    """Checks that a model can be written to a folder without loss of other files.

    Args:
        folder: Folder that is missing, empty, or a model folder, which would be replaced.
        name: Name of the option in error messages, such as "--export".

    Returns:
        The absolute path of the folder, with links resolved.

    Raises:
        UsageError: The folder holds other files, is the working directory or a mount point (which cannot be replaced),
            or cannot be written.
    """
    path = Path(folder).resolve()
    check_writable_folder(name, folder)
    check_writable_folder(name, path.parent)
    names = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    others = [entry for entry in names if entry not in MODEL_FILES or not (path / entry).is_file()]
    if others or (names and CARD_FILE not in names):
        listed = ", ".join((others or names)[:3]) + (", ..." if len(others or names) > 3 else "")
        raise UsageError(
            f"{name} {folder}: {path} is not a model folder, and a model would replace its content ({listed}); give a "
            "new or an empty folder"
        )
    if path == Path.cwd() or os.path.ismount(path):
        kind = "the working directory" if path == Path.cwd() else "a mount point"
        raise UsageError(f"{name} {folder}: {path} is {kind}; give a folder in it")
    return path


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which replaces the model folder atomically on exit; parents are created.

    Args:
        folder: As in `check_export`.

    Raises:
        UsageError: As in `check_export`; nothing is deleted.
        OSError: The folder cannot be written.
    """
    path = check_export(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        check_export(path)
        # The card is deleted last: a folder with a card is a model folder, which a later export may replace.
        for name in (WEIGHTS_FILE, CARD_FILE):
            (path / name).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def store_temperature(folder: Path, temperature: float) -> None:
    """Writes the temperature by which `load_model` divides the logits to the card of a model folder.

    A card without it, as of version 0.1, means a temperature of 1.

    Raises:
        OSError: The card cannot be read or written.
    """
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    if card.get("temperature", 1.0) != temperature:
        write_all(folder, {CARD_FILE: json.dumps({**card, "temperature": temperature}, indent=2) + "\n"})


def was_trained_with(folder: Path, settings: TransferSettings) -> bool:
    """Returns whether a folder holds a model whose card has the given settings, after repair."""
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        return TransferSettings.from_dict(card["settings"]) == repair(settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
