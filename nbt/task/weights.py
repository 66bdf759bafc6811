"""Pretrained weights: the library's own, none, or a file that is checked key by key."""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nbt.errors import NbtError, UsageError
from nbt.task.backbone_names import BackboneSpec
from nbt.task.backbones import (
    build_backbone,
    build_model,
    check_image_size,
    library_transform,
    library_weights,
)
from nbt.task.encoders import ENCODERS

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# Heads that training alone uses; their weights in a file are ignored.
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainedWeights:
    """What a backbone brings to a target.

    Attributes:
        w0: State of the units, keys "units.I....".
        mean: Mean of each RGB channel, of values in 0 ... 1, that it expects to be subtracted.
        std: Standard deviation that it expects to be divided by.
    """

    w0: dict[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_w0(spec: BackboneSpec, weights: str, *, image_size: int, seed: int = 0) -> PretrainedWeights:
    """Returns the weights that are to be transferred, checked against backbone and image size.

    Args:
        spec: The architecture.
        weights: "default" (the library's), "none" (a random initialisation), or the path of a state dict: `.pth`,
            `.pt`, or `.safetensors`. A file may lack the architecture's own classifier, or have one of another size.
        image_size: Height and width in pixels.
        seed: Of the random initialisation.

    Raises:
        UsageError: The file is none that fits (the message says what does not), there are no library weights for
            these arguments, or the backbone does not work at this image size.
        NbtError: The library's weights cannot be fetched.
    """
    model = build_backbone(spec, 2, image_size=image_size, seed=seed)
    check_image_size(spec, model)
    if weights == "default":
        w0 = _from_library(spec)
    elif weights == "none":
        w0 = model.unit_state()
    else:
        w0 = _from_file(spec, Path(weights), model.unit_state())
    mean, std = _normalisation(spec)
    return PretrainedWeights(w0={name: tensor.clone() for name, tensor in w0.items()}, mean=mean, std=std)


def fresh_state(spec: BackboneSpec, image_size: int, seed: int) -> dict[str, torch.Tensor]:
    """Returns the units' state as the library initialises them, keys "units.I....", drawn by `seed`."""
    return build_backbone(spec, 2, image_size=image_size, seed=seed).unit_state()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a weights file by name; no code in it is run.

    Names lose the "module." that data-parallel training puts before them, and a mapping inside "state_dict" or
    "model" is taken out.

    Raises:
        UsageError: There is no such file, or it is not a state dict.
    """
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file")
    try:
        state: Any = _read(path)
    except Exception as error:  # torn and foreign files raise whatever their bytes lead to
        raise UsageError(f"weights {path}: not a file of tensors that can be read safely ({_why(error)})") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UsageError(f"weights {path}: holds {_a(state)}, not a state dict (names to tensors)")
    wrong = next((name for name, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise UsageError(f"weights {path}: {wrong!r} is {_a(state[wrong])}, not a tensor; save model.state_dict()")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _why(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects other than tensors, or is damaged"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _a(value: object) -> str:
    return f"a {type(value).__name__}"


def _from_file(spec: BackboneSpec, path: Path, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = read_state_dict(path)
    if spec.name in ENCODERS or any(name.startswith("units.") for name in state):
        check_state(state, like, ("head.",), spec, path)
        return {name: state[name] for name in like}
    model = build_model(spec, seed=0)
    own = model.state_dict()
    in_units = _names_in_units(model)
    head = [name for name in own if name not in in_units and not name.startswith(_AUXILIARY)]
    check_state(state, {name: own[name] for name in in_units}, (*head, *_AUXILIARY), spec, path)
    model.load_state_dict({name: state[name] for name in in_units if name in state}, strict=False)
    return _unit_state(model)


def _names_in_units(model: nn.Module) -> list[str]:
    """Returns the names of the parameters and buffers of `model` that belong to its units, by identity."""
    units = _decomposed(model)
    inside = {id(tensor) for tensor in (*units.parameters(), *units.buffers())}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    kept = model.state_dict().keys()
    return [name for name, tensor in named if id(tensor) in inside and name in kept]


def _decomposed(model: nn.Module) -> nn.ModuleList:
    from nbt.task.units import decompose

    return nn.ModuleList(module for _, module in decompose(model).units)


def _unit_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return _decomposed(model).state_dict(prefix="units.")


def check_state(
    state: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    allowed: tuple[str, ...],
    spec: BackboneSpec,
    path: Path,
) -> None:
    """Checks a state dict against an architecture, key by key.

    Args:
        state: From the file.
        wanted: What has to be there, with these shapes; counters of BatchNorm may be missing.
        allowed: Beginnings of the names that may be there besides, whatever their shape: heads.
        spec: For the message.
        path: For the message.

    Raises:
        UsageError: Keys are missing, of other shapes, unknown, or hold values that are not finite.
    """
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    misshapen = [
        f"{name} is {_shape(state[name])}, not {_shape(tensor)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    unknown = [name for name in state if name not in wanted and not name.startswith(allowed)]
    infinite = [name for name in wanted if name in state and not torch.isfinite(state[name]).all()]
    problems = [
        _listed("missing", missing, len(wanted)),
        _listed("misshapen", misshapen, len(wanted)),
        _listed("not of this architecture", unknown, len(state)),
        _listed("not finite", infinite, len(wanted)),
    ]
    found = "; ".join(filter(None, problems))
    if found:
        raise UsageError(f"weights {path} do not fit {spec.text}: {found}")


def _listed(what: str, names: list[str], total: int) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} of {total} {what}: {', '.join(names[:_SHOWN])}{more}"


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _from_library(spec: BackboneSpec) -> dict[str, torch.Tensor]:
    weights = library_weights(spec)
    if weights is None:
        raise UsageError(f"backbone {spec.text} has no library weights: give --weights FILE, or --weights none")
    model = build_model(spec, seed=0)
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise NbtError(
            f"the library's weights of {spec.name} cannot be fetched ({_why(error)}): "
            "give a state dict with --weights FILE, or --weights none"
        ) from error
    in_units = _names_in_units(model)
    own = model.state_dict()
    if any(name not in state or state[name].shape != own[name].shape for name in in_units):
        raise UsageError(
            f"backbone {spec.text} has no library weights: with these arguments it has other shapes than "
            f"{spec.name}; give --weights FILE, or --weights none"
        )
    model.load_state_dict({name: state[name] for name in in_units}, strict=False)
    return _unit_state(model)


def _normalisation(spec: BackboneSpec) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns mean and standard deviation: of the library's weights, ImageNet's without any, .5 for our encoders."""
    if spec.name in ENCODERS:
        return _HALF, _HALF
    transform = library_transform(spec)
    return (
        _three(getattr(transform, "mean", _IMAGENET_MEAN)),
        _three(getattr(transform, "std", _IMAGENET_STD)),
    )


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
