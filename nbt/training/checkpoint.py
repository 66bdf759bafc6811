"""Checkpoints of running trainings: written atomically, and read without executing code from the file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

_log = logging.getLogger("nbt")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to a temporary file in the folder of `path` and renames it to `path`.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    if saved_identity != identity:
        _log.warning("checkpoint %s belongs to another training: the training starts over", path)
        return None
    assert isinstance(state, dict)
    return state
