"""Files of a model folder, and the safe replacement of one; independent of PyTorch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbt._version import __version__
from nbt.errors import UsageError
from nbt.files import machine_code
from nbt.option import IMAGE_SIZES
from nbt.paths import check_writable_folder
from nbt.search_config import RESIZE_MODES
from nbt.settings import TransferSettings, repair

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
README_FILE = "README.md"
CARD_KEY = "nbt"
"""Name of the card in the metadata of a model in one file."""

DIGEST_KEY = "weights_sha256"
"""Key of the card for the SHA-256 of the file of weights."""

MODEL_FILES = (CARD_FILE, WEIGHTS_FILE, README_FILE)
"""Names of all files in a model folder."""

FORMAT = 1
NORM_FORMAT = 2
"""Format of a model with feature standardisation, which a reader of format 1 would ignore."""
LINEARIZED_FORMAT = 3
"""Format of a linearised model, which has its weights and the weights around which it is expanded."""
DECODING_FORMAT = 4
"""Format of a model whose images are decoded in a way that a reader of the formats before would ignore."""

_FORMATS = (FORMAT, NORM_FORMAT, LINEARIZED_FORMAT, DECODING_FORMAT)
# Entries of a card that every version has written, with their types.
_ENTRIES: dict[str, type] = {
    "backbone": str,
    "image_size": int,
    "mean": list,
    "std": list,
    "class_names": list,
    "settings": dict,
}


def find_model(folder: str | Path) -> Path:
    """Returns the path of a model folder, or of a model in one file of safetensors.

    Raises:
        UsageError: The folder is not a model folder; if it contains one, the message names it.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise UsageError(f"model {folder!r}: give the path of a model folder, model/ of a study")
    path = Path(folder)
    if path.is_file() or (path / CARD_FILE).is_file():
        return path
    if (path / "model" / CARD_FILE).is_file():
        raise UsageError(f"{folder} is not a model folder; did you mean {path / 'model'}?")
    reason = f"not a model folder (it has no {CARD_FILE})" if path.is_dir() else "no such folder"
    raise UsageError(f"{folder}: {reason}; give model/ of a study, or a folder written by nbt train --export")


def read_card(folder: Path) -> dict[str, Any]:
    """Returns the card of a model folder.

    Raises:
        UsageError: The folder is not a model folder, its format is unknown, or its card is damaged.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{folder} is not a model folder of nbt ({CARD_FILE}: {error}); export the model again"
        ) from error
    return check_card(card, str(path))


def check_card(card: Any, source: str) -> dict[str, Any]:
    """Returns the card of a model if it can be read.

    Args:
        card: The card as it was read.
        source: Its file, for messages.

    Raises:
        UsageError: The format of the model is unknown, or the card is damaged.
    """
    if not isinstance(card, dict) or "format" not in card:
        raise damaged_card(source, f"expected a mapping with format, {', '.join(_ENTRIES)}, got {card!r:.40}")
    if card["format"] not in _FORMATS:
        known = ", ".join(map(str, _FORMATS))
        raise UsageError(
            f"{source}: format {card['format']!r} cannot be read by nbt {__version__}, which reads formats {known}"
        )
    wrong = [name for name, kind in _ENTRIES.items() if not isinstance(card.get(name), kind)]
    wrong += [name for name in ("mean", "std") if name not in wrong and len(card[name]) != 3]
    wrong += ["mean"] if "mean" not in wrong and not all(map(_is_finite, card["mean"])) else []
    wrong += ["class_names"] if "class_names" not in wrong and not _are_names(card["class_names"]) else []
    if "image_size" not in wrong and not IMAGE_SIZES[0] <= card["image_size"] <= IMAGE_SIZES[1]:
        wrong.append("image_size")
    wrong += [name for name in ("std", "temperature") if name not in wrong and not _are_positive(card.get(name, 1.0))]
    wrong += ["resize"] if card.get("resize", "crop") not in RESIZE_MODES else []
    wrong += ["value_ranges"] if not isinstance(card.get("value_ranges", {}), dict) else []
    if wrong:
        raise damaged_card(source, ", ".join(wrong))
    return card


def damaged_card(source: str, reason: str) -> UsageError:
    """Returns the error of a card whose values cannot be used.

    Args:
        source: File of the card.
        reason: The wrong entries, or what is wrong with them.
    """
    return UsageError(f"{source}: the card is damaged ({reason}); export the model again")


def _are_names(values: list[Any]) -> bool:
    """Returns whether values are distinct texts, at least one."""
    return bool(values) and all(isinstance(name, str) for name in values) and len(set(values)) == len(values)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _are_positive(values: Any) -> bool:
    """Returns whether a value, or each value of a list, is a finite number above 0."""
    items = values if isinstance(values, list) else [values]
    return all(_is_finite(item) and item > 0 for item in items)


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


def check_register(register: str | None, export: str | Path | None) -> None:
    """Checks that a model that is to be registered is exported.

    Raises:
        UsageError: It is not.
    """
    if register is not None and export is None:
        raise UsageError(f"--register {register}: only an exported model can be registered; add --export DIR")


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
    temporary = path.with_name(f".{path.name}.{machine_code()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        check_export(path)
        # The card is deleted last: a folder with a card is a model folder, which a later export may replace.
        for name in (README_FILE, WEIGHTS_FILE, CARD_FILE):
            (path / name).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def weights_digest(folder: Path) -> str:
    """Returns the SHA-256 of the file of weights of a model folder.

    Raises:
        OSError: The file cannot be read.
    """
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_intact_weights(folder: Path, card: Mapping[str, Any]) -> bool:
    """Returns whether the file of weights is the one that was exported with the card.

    Cards of earlier versions have no digest: their weights count as intact.

    Raises:
        OSError: The file cannot be read.
    """
    found = weights_digest(folder)
    return bool(found == card.get(DIGEST_KEY, found))


def was_trained_with(folder: Path, settings: TransferSettings) -> bool:
    """Returns whether a folder holds an undamaged model whose card has the given settings, after repair."""
    return not model_problem(folder, settings)


def model_problem(folder: Path, settings: TransferSettings) -> str:
    """Returns why a folder does not hold the undamaged model of some settings, after repair.

    Returns:
        "is missing", "is damaged" or "has other settings"; "" if the folder holds it.
    """
    if not folder.is_dir():
        return "is missing"
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        is_other = TransferSettings.from_dict(card["settings"]) != repair(settings)
        is_damaged = not has_intact_weights(folder, card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_other, is_damaged = False, True
    return "is damaged" if is_damaged else "has other settings" if is_other else ""
