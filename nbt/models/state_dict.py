"""Weights files: read without running code in them, and checked against an architecture key by key."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nbt.errors import UsageError

# Heads that take part in the training of the source alone; they are ignored.
_AUXILIARY_HEAD_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")
_WRAPPER_KEYS = ("state_dict", "model", "model_state_dict")
# Names in files that torchvision publishes but renames when it loads them.
_LEGACY_KEY_PATTERNS = (
    (re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_MAX_KEYS_SHOWN = 5


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a weights file by name; no code in it is run.

    A mapping inside "state_dict" or "model" is taken out, and names lose the "module." that data-parallel training
    puts before them.

    Args:
        path: `.safetensors`, or whatever `torch.save` wrote.

    Raises:
        UsageError: There is no such file, or it is not a state dict.
    """
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file")
    try:
        state = _load_file(path)
    except Exception as error:  # torn and foreign files raise whatever their bytes lead to
        raise UsageError(
            f"weights {path}: not a file of tensors that can be read safely ({_error_reason(error)})"
        ) from error
    for wrapper in _WRAPPER_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        kind = "nothing" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise UsageError(f"weights {path}: holds {kind}, not a state dict (names to tensors); save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            found = f"{name!r}: a {type(value).__name__}"
            raise UsageError(f"weights {path}: holds {found}, so it is not a state dict; save model.state_dict()")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise UsageError(f"weights {path}: {name} is a sparse, quantised or empty tensor; save plain ones")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _error_reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects other than tensors, or is damaged"
    return " ".join(str(error).split())[:120] or type(error).__name__


def rename_legacy_keys(state: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Returns the state with names that torchvision once used put as it uses them now, where those are wanted."""
    known = set(wanted)
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in _LEGACY_KEY_PATTERNS:
            new = pattern.sub(replacement, new)
        renamed[new if new in known else name] = tensor
    return renamed


def check_state_dict(
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    *,
    heads: tuple[str, ...],
    source: str,
    backbone: str,
) -> None:
    """Checks a state dict against an architecture, key by key.

    Args:
        state: What there is.
        wanted: What has to be there, of these shapes and kinds; counters of BatchNorm may be missing.
        heads: Beginnings of the names of classifiers, which may be there besides, in whatever shape.
        source: What the state dict is called in errors.
        backbone: What the architecture is called in errors.

    Raises:
        UsageError: Keys are missing, of other shapes, unknown, or hold values that are not finite; one line names the
            first few of each.
    """
    present = {name: state[name] for name in wanted if name in state}
    misshapen = [
        f"{name} (expected {_describe_shape(wanted[name])}, found {_describe_shape(tensor)})"
        for name, tensor in present.items()
        if _describe_shape(wanted[name]) != _describe_shape(tensor)
    ]
    problems = [
        _format_keys("missing", [name for name in wanted if name not in state and not is_batch_counter(name)]),
        _format_keys("misshapen", misshapen),
        _format_keys(
            "unknown", [n for n in state if n not in wanted and not n.startswith((*heads, *_AUXILIARY_HEAD_PREFIXES))]
        ),
        _format_keys("not finite", [name for name, tensor in present.items() if not torch.isfinite(tensor).all()]),
    ]
    found = "; ".join(filter(None, problems))
    if found:
        raise UsageError(f"{source} does not fit {backbone}: {found}")


def is_batch_counter(name: str) -> bool:
    """Whether a key is BatchNorm's count of batches, which older files lack and nothing here reads."""
    return name.endswith(".num_batches_tracked")


def _format_keys(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MAX_KEYS_SHOWN} more" if len(names) > _MAX_KEYS_SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_MAX_KEYS_SHOWN])}{more}"


def _describe_shape(tensor: torch.Tensor) -> str:
    """Returns the shape, and the kind where it is not floating point; precisions of floats are all the same."""
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"
