"""Files of pretrained sources: cache files, named by the hash of their recipe, and exports for `--weights FILE`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nbt.errors import NbtError
from nbt.files import atomic_file

HEAD_KEYS = ("head.weight", "head.bias")
CLASS_MEAN_KEYS = ("source.means", "source.counts")
_METADATA_KEY = "nbt"

State = dict[str, torch.Tensor]


def read_source(path: Path, reference_state: Mapping[str, torch.Tensor]) -> State | None:
    """Returns the tensors of a cached source (units, head, class means); None if the file is missing or damaged.

    Args:
        path: The file.
        reference_state: State of the units of the same backbone; names and shapes must match.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    matches = all(name in state and state[name].shape == tensor.shape for name, tensor in reference_state.items())
    return state if matches and all(name in state for name in (*HEAD_KEYS, *CLASS_MEAN_KEYS)) else None


def read_source_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata that `write_source` stored in a file, {} if there is none."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        card = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    assert isinstance(card, dict)
    return card


def write_source(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any] | None = None) -> None:
    """Writes tensors to a temporary file and renames it to `path`.

    Args:
        path: The file, `.safetensors`.
        state: Tensors by name.
        card: Metadata in JSON types; None stores none.

    Raises:
        NbtError: The file cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = None if card is None else {_METADATA_KEY: json.dumps(card, sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except OSError as error:
        raise NbtError(f"{path} cannot be written ({error})") from error


def export_weights(path: Path, state: Mapping[str, torch.Tensor], card: Mapping[str, Any] | None = None) -> None:
    """Writes the units and the head of a source as a state dict that `--weights FILE` accepts.

    Args:
        path: The file, `.safetensors`.
        state: Tensors of the source by name; class means are left out.
        card: Metadata in JSON types; None stores none.

    Raises:
        NbtError: The file cannot be written.
    """
    write_source(path, {name: tensor for name, tensor in state.items() if name not in CLASS_MEAN_KEYS}, card)
