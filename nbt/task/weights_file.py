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
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
# Names in files that torchvision publishes but renames when it loads them.
_OLD_NAMES = (
    (re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_SHOWN = 5


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
        state = _read(path)
    except Exception as error:  # torn and foreign files raise whatever their bytes lead to
        raise UsageError(f"weights {path}: not a file of tensors that can be read safely ({_why(error)})") from error
    for wrapper in _WRAPPERS:
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


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _why(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects other than tensors, or is damaged"
    return " ".join(str(error).split())[:120] or type(error).__name__


def rename_old(state: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Returns the state with names that torchvision once used put as it uses them now, where those are wanted."""
    known = set(wanted)
    renamed = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in _OLD_NAMES:
            new = pattern.sub(replacement, new)
        renamed[new if new in known else name] = tensor
    return renamed


def check_state(
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
        f"{name} (expected {_describe(wanted[name])}, found {_describe(tensor)})"
        for name, tensor in present.items()
        if _describe(wanted[name]) != _describe(tensor)
    ]
    problems = [
        _listed("missing", [name for name in wanted if name not in state and not is_counter(name)]),
        _listed("misshapen", misshapen),
        _listed("unknown", [n for n in state if n not in wanted and not n.startswith((*heads, *_AUXILIARY))]),
        _listed("not finite", [name for name, tensor in present.items() if not torch.isfinite(tensor).all()]),
    ]
    found = "; ".join(filter(None, problems))
    if found:
        raise UsageError(f"{source} does not fit {backbone}: {found}")


def is_counter(name: str) -> bool:
    """Whether a key is BatchNorm's count of batches, which older files lack and nothing here reads."""
    return name.endswith(".num_batches_tracked")


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"


def _describe(tensor: torch.Tensor) -> str:
    """Returns the shape, and the kind where it is not floating point; precisions of floats are all the same."""
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"
