"""Reads and writes weights files without executing code in them, and checks state dicts against an architecture.

A file can state which BatchNorm layers have no usable running statistics, because its weights come from another
network. The names of these layers are a list, "stale_statistics", in the entry "nbt" of the metadata of a
`.safetensors` file (as JSON) or of the attribute `_metadata` of a state dict in a file of `torch.save`. Other programs
read both as plain state dicts.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nbt.errors import UsageError, one_line_message
from nbt.files import atomic_file

# Auxiliary heads, which are used only while a source model is trained; they are ignored.
_AUXILIARY_HEAD_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")
_WRAPPER_KEYS = ("state_dict", "model", "model_state_dict")
_METADATA_KEY, _STALE_STATISTICS = "nbt", "stale_statistics"
# Names in published files that torchvision renames while loading.
_LEGACY_KEY_PATTERNS = (
    (re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_MAX_KEYS_SHOWN = 5


def read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Reads a weights file, without executing code in it.

    A mapping inside "state_dict", "model" or "model_state_dict" is unwrapped, and the prefix "module." of data-parallel
    training is removed.

    Args:
        path: A `.safetensors` file, or a file of `torch.save`.

    Returns:
        The tensors by name, and the names of the BatchNorm layers without usable running statistics.

    Raises:
        UsageError: The file does not exist, or is not a state dict.
    """
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file")
    try:
        state, metadata = _load_file(path)
    except Exception as error:  # damaged and foreign files raise errors of many types
        raise UsageError(
            f"weights {path}: not a file of tensors that can be read safely ({_error_reason(error)})"
        ) from error
    for wrapper in _WRAPPER_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state, metadata = state[wrapper], _torch_metadata(state[wrapper])
    if not isinstance(state, Mapping) or not state:
        kind = "nothing" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise UsageError(f"weights {path}: holds {kind}, not a state dict (names to tensors); save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            problem = f"{name!r}: a {type(value).__name__}"
            raise UsageError(f"weights {path}: holds {problem}, so it is not a state dict; save model.state_dict()")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise UsageError(f"weights {path}: {name} is a sparse, quantised or empty tensor; save plain ones")
    stale = metadata.get(_STALE_STATISTICS, [])
    if not isinstance(stale, list) or not all(isinstance(name, str) for name in stale):
        raise UsageError(f"weights {path}: {_STALE_STATISTICS} of its metadata is not a list of names of layers")
    tensors = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return tensors, tuple(name.removeprefix("module.") for name in stale)


def write_state_dict(path: Path, state: Mapping[str, torch.Tensor], stale_statistics: Collection[str]) -> None:
    """Writes a weights file to a temporary name, then renames it.

    Args:
        path: A `.safetensors` file; with another suffix, a file of `torch.save`.
        state: Tensors by name.
        stale_statistics: Names of the BatchNorm layers whose running statistics are to be re-estimated.
    """
    from safetensors.torch import save_file

    metadata = {_STALE_STATISTICS: list(stale_statistics)}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
            save_file(tensors, temporary, metadata={_METADATA_KEY: json.dumps(metadata)})
        else:
            plain = OrderedDict(state)
            plain._metadata = OrderedDict({_METADATA_KEY: metadata})  # type: ignore[attr-defined]
            torch.save(plain, temporary)


def _load_file(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """Returns the content of a weights file and the metadata of nbt, empty if there are none."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open
        from safetensors.torch import load_file

        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
        return load_file(path), metadata if isinstance(metadata, dict) else {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state, _torch_metadata(state)


def _torch_metadata(state: Any) -> Mapping[str, Any]:
    metadata = getattr(state, "_metadata", {}).get(_METADATA_KEY, {})
    return metadata if isinstance(metadata, dict) else {}


def _error_reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects other than tensors, or is damaged"
    if isinstance(error, EOFError | LookupError):  # their texts are offsets and keys
        return "it is empty, or damaged"
    return one_line_message(error, 120)


def rename_legacy_keys(state: Mapping[str, torch.Tensor], expected: Iterable[str]) -> dict[str, torch.Tensor]:
    """Renames torchvision's legacy keys where the new names are expected."""
    known = set(expected)
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in _LEGACY_KEY_PATTERNS:
            new = pattern.sub(replacement, new)
        renamed[new if new in known else name] = tensor
    return renamed


def check_state_dict(
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    ignored_prefixes: tuple[str, ...],
    source: str,
    backbone: str,
) -> None:
    """Checks a state dict against an architecture, key by key.

    Args:
        state: The state dict.
        expected: Tensors of the expected names, shapes and types; BatchNorm's batch counters may be missing.
        ignored_prefixes: Prefixes of further keys that may be present, such as those of the classifier.
        source: Name of the state dict in messages.
        backbone: Name of the architecture in messages.

    Raises:
        UsageError: Tensors are missing, unknown, of another shape or not finite; one line names the first few of each.
    """
    ignored = (*ignored_prefixes, *_AUXILIARY_HEAD_PREFIXES)
    present = {name: state[name] for name in expected if name in state}
    reshaped = [
        f"{name} (expected {_describe_shape(expected[name])}, found {_describe_shape(tensor)})"
        for name, tensor in present.items()
        if _describe_shape(expected[name]) != _describe_shape(tensor)
    ]
    problems = [
        _format_keys("missing", [name for name in expected if name not in state and not is_batch_counter(name)]),
        _format_keys("of another shape", reshaped),
        _format_keys("unknown", [name for name in state if name not in expected and not name.startswith(ignored)]),
        _format_keys("not finite", [name for name, tensor in present.items() if not torch.isfinite(tensor).all()]),
    ]
    summary = "; ".join(filter(None, problems))
    if summary:
        raise UsageError(f"{source} does not fit {backbone}: {summary}")


def is_batch_counter(name: str) -> bool:
    """Returns whether a key is BatchNorm's batch counter, which older files lack and nbt does not use."""
    return name.endswith(".num_batches_tracked")


def _format_keys(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MAX_KEYS_SHOWN} more" if len(names) > _MAX_KEYS_SHOWN else ""
    return f"{len(names)} {problem}: {', '.join(names[:_MAX_KEYS_SHOWN])}{more}"


def _describe_shape(tensor: torch.Tensor) -> str:
    """Returns the shape, and the data type of tensors that are not floating-point."""
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"
