"""Files of pretrained sources: in the cache under the hash of their recipe, and exported for `--weights FILE`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nbt.errors import NbtError

HEAD_KEYS = ("head.weight", "head.bias")
CLASS_MEAN_KEYS = ("source.means", "source.counts")
_METADATA_KEY = "nbt"

State = dict[str, torch.Tensor]


def read_source(path: Path, reference_state: Mapping[str, torch.Tensor]) -> State | None:
    """Returns a cached source: units, head, class means; None where there is none, or a damaged one.

    Args:
        path: The file.
        reference_state: Units of its architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    fits = all(name in state and state[name].shape == tensor.shape for name, tensor in reference_state.items())
    return state if fits and all(name in state for name in (*HEAD_KEYS, *CLASS_MEAN_KEYS)) else None


def read_source_metadata(path: Path) -> dict[str, Any]:
    """Returns what `write_source` noted of a source, {} where it noted nothing."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        card = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    assert isinstance(card, dict)
    return card


def write_source(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any] | None = None) -> None:
    """Writes tensors under a temporary name and renames it.

    Args:
        path: The file, `.safetensors`.
        state: By name.
        card: What to note beside them, in JSON types.

    Raises:
        NbtError: It cannot be written.
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = None if card is None else {_METADATA_KEY: json.dumps(card, sort_keys=True)}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, temporary, metadata=metadata)
        temporary.replace(path)
    except OSError as error:
        raise NbtError(f"{path} cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def export_weights(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any] | None = None) -> None:
    """Writes units and head of a source as a state dict that `--weights FILE` accepts.

    Args:
        path: The file, `.safetensors`.
        state: Of the source; its class means are left out.
        card: What to note beside them.

    Raises:
        NbtError: It cannot be written.
    """
    write_source(path, {name: tensor for name, tensor in state.items() if name not in CLASS_MEAN_KEYS}, card)
