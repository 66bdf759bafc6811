"""Checkpoints of running trainings: written atomically, and read without executing code from the file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from nbt.files import atomic_file

_log = logging.getLogger("nbt")


TRAINING_VERSION = 1
"""Version of the training code. It is raised when the same settings, data and weights train to another result; a
checkpoint of another version is not continued."""

# Values that checkpoints of version 0.1 do not have. Their weights and bytes are unknown and assumed to be the same.
_ADDED_AFTER_0_1 = {"weights_hash": None, "training_version": 1, "content_hash": None}


def checkpoint_identity(**values: Any) -> dict[str, Any]:
    """Returns the values that a checkpoint must have to be continued, with the version of the training code.

    Args:
        **values: JSON types: hashes of data and weights, identity of the settings, seed, split.
    """
    return {**values, "training_version": TRAINING_VERSION}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to a temporary file in the folder of `path` and renames it to `path`.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the state in `path`, or None without a usable one; the training then starts from the beginning.

    Args:
        path: The file.
        identity: Identity of the training, which must equal the value of the key "identity" of the state.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved_identity = state["identity"]
    except Exception as error:  # a truncated or foreign file can raise any exception
        _log.warning("checkpoint %s cannot be read (%s): the training starts over", path, type(error).__name__)
        return None
    differing = _differing_names(saved_identity, identity)
    if differing:
        _log.warning("checkpoint %s has other %s: the training starts over", path, ", ".join(differing))
        return None
    assert isinstance(state, dict)
    return state


def _differing_names(found: Any, identity: dict[str, Any]) -> list[str]:
    """Returns the names of the values that differ between a stored identity and the wanted one."""
    if not isinstance(found, dict):
        return ["identity"]
    unknown = found.keys() - identity.keys()
    differing = [name for name, value in identity.items() if not _agrees(found, name, value)]
    return [name.removesuffix("_hash").replace("_", " ") for name in (*differing, *sorted(unknown))]


def _agrees(found: dict[str, Any], name: str, value: Any) -> bool:
    if name not in found and name in _ADDED_AFTER_0_1:
        return _ADDED_AFTER_0_1[name] in (None, value)
    return name in found and bool(found[name] == value)
