"""Checkpoints of a running trial: written whole or not at all, and read without running code."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

_log = logging.getLogger("nbt")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors and plain values) to a temporary name beside `path` and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the state in `path`, or None where there is none that can be used; a trial then starts at the beginning.

    Args:
        path: The file.
        identity: What the state has to say under "identity": it is of this very trial.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as error:  # a torn or foreign file raises whatever its bytes lead to
        _log.warning("checkpoint %s cannot be read (%s): the trial starts over", path, type(error).__name__)
        return None
    if found != identity:
        _log.warning("checkpoint %s is of another trial: the trial starts over", path)
        return None
    assert isinstance(state, dict)
    return state
