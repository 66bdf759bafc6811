"""Pretrained weights: the library's, a random initialisation, or a file that is checked key by key."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nbt.errors import NbtError, UsageError, one_line_message
from nbt.models.backbone import (
    build_on_meta_device,
    default_image_size,
    feature_dim,
    random_unit_state,
    torchvision_default_weights,
    unit_state_dict,
)
from nbt.models.backbone_spec import TIMM_PREFIX, BackboneSpec
from nbt.models.batch_norm import initial_statistics
from nbt.models.encoders import ENCODER_BUILDERS
from nbt.models.state_dict import check_state_dict, read_state_dict, rename_legacy_keys
from nbt.models.units import Decomposition

__all__ = ["PretrainedWeights", "build_source_head", "random_unit_state", "hash_weights", "load_pretrained_weights"]

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, eq=False)
class SourceClassMeans:
    """Mean features of the source classes.

    Attributes:
        means: Mean features of each class's images in evaluation mode, float32 (C_s, D).
        counts: Number of source images per class, int64 (C_s,).
        class_names: Class names, if known.
    """

    means: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainedWeights:
    """The weights of a backbone that are transferred to a target.

    Attributes:
        w0: State of the units, keys "units.I....".
        mean: Mean of each RGB channel for normalisation, of values in 0 ... 1.
        std: Standard deviation of each RGB channel for normalisation.
        source_head: The classifier of the source, keys "head.weight" and "head.bias", if the weights include one; see
            `build_source_head`.
        source_means: Mean features of the source classes, if known.
        stale_statistics: Names of the BatchNorm layers ("units.I....") whose running statistics in w0 are unusable
            until they are re-estimated on target images.
    """

    w0: dict[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source_head: dict[str, torch.Tensor] | None = None
    source_means: SourceClassMeans | None = None
    stale_statistics: tuple[str, ...] = ()


def load_pretrained_weights(
    spec: BackboneSpec, weights: str | Path, *, image_size: int, seed: int = 0
) -> PretrainedWeights:
    """Loads the weights to transfer and checks them against backbone and image size.

    Args:
        spec: The architecture.
        weights: "default" (the library's), "none" (a random initialisation), or the path of a state dict: of the
            library's model, with or without a classifier of any number of classes, or of a `Backbone`.
        image_size: Height and width in pixels.
        seed: Seed of the random initialisation.

    Raises:
        UsageError: The file does not fit (the message names the keys), the library has no weights for these arguments,
            or the backbone does not work at this image size.
        NbtError: The library's weights cannot be downloaded.
    """
    feature_dim(spec, image_size)
    mean, std = _normalisation(spec)
    if weights == "none":
        return PretrainedWeights(w0=random_unit_state(spec, image_size, seed), mean=mean, std=std)
    model, parts = build_on_meta_device(spec, image_size)
    if weights == "default":
        state, source = _fetch_library_state_dict(spec, image_size), f"the library's state dict of {spec.name}"
        stale: tuple[str, ...] = ()
    else:
        (state, stale), source = read_state_dict(Path(weights)), f"weights {weights}"
        if spec.name.startswith(TIMM_PREFIX):
            from nbt.models.timm_units import resize_timm_state_dict

            state = resize_timm_state_dict(spec, state, image_size)
    w0, source_head, unit_names = _match_state_dict(state, spec, model, parts, source)
    if not stale and (initial := initial_statistics(w0)):
        logging.getLogger("nbt").warning(
            f"{source}: {len(initial)} BatchNorm layers have the running statistics of new layers, mean 0 and variance "
            "1, so outputs in evaluation mode may be meaningless; if nbt inject wrote this file, write it again"
        )
    stale_statistics = _match_layers(stale, unit_names, source)
    return PretrainedWeights(w0=w0, mean=mean, std=std, source_head=source_head, stale_statistics=stale_statistics)


def hash_weights(w0: Mapping[str, torch.Tensor], stale_statistics: Collection[str] = ()) -> str:
    """Returns the SHA-256 hash of a state dict's names and values, and of the layers with unusable statistics."""
    digest = hashlib.sha256("".join(f"{name}:stale" for name in sorted(stale_statistics)).encode())
    for name, tensor in sorted(w0.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_source_head(spec: BackboneSpec, pretrained: PretrainedWeights) -> nn.Module:
    """Builds the classifier of the source, frozen: maps the last unit's output to logits of the source classes.

    Args:
        spec: The architecture.
        pretrained: Its weights.

    Raises:
        UsageError: The weights do not include a classifier.
    """
    state = pretrained.source_head
    if state is None:
        raise UsageError(f"the weights of {spec.text} came without a classifier of the source's classes")
    weight = state["head.weight"]
    _, parts = build_on_meta_device(spec, default_image_size(spec), n_classes=len(weight))
    head = parts.source_head
    if head is None or _source_head_tensors(parts)["head.weight"].ndim != weight.ndim:
        linear = nn.Linear(weight.shape[1], len(weight), device="meta")
        head = nn.Sequential(OrderedDict(neck=parts.neck, head=linear))
    head.load_state_dict(state, assign=True)
    return head.requires_grad_(False).eval()


def _match_state_dict(
    state: dict[str, torch.Tensor], spec: BackboneSpec, model: nn.Module, parts: Decomposition, source: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None, dict[str, str]]:
    """Checks a state dict and splits it into the state of the units and of the source head.

    The third result has the name in the file of each tensor of the units.
    """
    units = unit_state_dict(parts)
    if any(name.startswith("units.") for name in state):
        unit_names = {key: key for key in units}
        head_names = {key: key for key in ("head.weight", "head.bias")}
        head_prefixes: tuple[str, ...] = ("head.",)
    else:
        name_by_id = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
        unit_names = {key: name_by_id[id(tensor)] for key, tensor in units.items()}
        head_names = {key: name_by_id[id(tensor)] for key, tensor in _source_head_tensors(parts).items()}
        head_prefixes = _head_prefixes(model, head_names)
        state = rename_legacy_keys(state, unit_names.values())
    expected = {unit_names[key]: tensor for key, tensor in units.items()}
    check_state_dict(state, expected, ignored_prefixes=head_prefixes, source=source, backbone=spec.text)
    w0 = {key: _to_model_dtype(state.get(unit_names[key]), tensor) for key, tensor in units.items()}
    return w0, _usable_source_head({key: state.get(name) for key, name in head_names.items()}, parts), unit_names


def _match_layers(layers: Collection[str], unit_names: Mapping[str, str], source: str) -> tuple[str, ...]:
    """Returns the names of BatchNorm layers in the units, from their names in the file.

    Raises:
        UsageError: The units have no such BatchNorm layer.
    """
    mean = ".running_mean"
    by_file_name = {
        name.removesuffix(mean): key.removesuffix(mean) for key, name in unit_names.items() if key.endswith(mean)
    }
    unknown = [name for name in layers if name not in by_file_name]
    if unknown:
        raise UsageError(
            f"{source}: its metadata marks running statistics of {unknown[0]}, which is no BatchNorm layer of the "
            "backbone; write the file again"
        )
    return tuple(by_file_name[name] for name in layers)


def _source_head_tensors(parts: Decomposition) -> dict[str, torch.Tensor]:
    return {} if parts.source_head is None else parts.source_head.state_dict(keep_vars=True)


def _head_prefixes(model: nn.Module, head_names: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the key prefixes of the classifier, including those of a file with several layers in its place."""
    timm_classifier = getattr(model, "default_cfg", {}).get("classifier", ())
    names = (timm_classifier,) if isinstance(timm_classifier, str) else tuple(timm_classifier)
    return (*{f"{name.rpartition('.')[0]}." for name in head_names.values()}, *(f"{name}." for name in names))


def _to_model_dtype(tensor: torch.Tensor | None, model_tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor with the data type of the model's tensor; a missing counter becomes 0."""
    if tensor is None:
        return torch.zeros(model_tensor.shape, dtype=model_tensor.dtype)
    return tensor.detach().to(model_tensor.dtype).contiguous()


def _usable_source_head(
    tensors: Mapping[str, torch.Tensor | None], parts: Decomposition
) -> dict[str, torch.Tensor] | None:
    """Returns the state of the source's classifier; None if it is missing or not a plain linear layer."""
    state = {key: tensor.detach().float() for key, tensor in tensors.items() if tensor is not None}
    weight = state.get("head.weight")
    if weight is None or len(state) < len(tensors) or weight.ndim < 2:
        return None
    expected = _source_head_tensors(parts).get("head.weight")
    fits = expected is None or expected.ndim != weight.ndim or expected.shape[1:] == weight.shape[1:]
    one_row_per_class = all(len(tensor) == len(weight) for tensor in state.values())
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    return state if fits and one_row_per_class and finite else None


def _fetch_library_state_dict(spec: BackboneSpec, image_size: int) -> dict[str, torch.Tensor]:
    """Downloads the library's default weights through the library's own loader."""
    if spec.name.startswith(TIMM_PREFIX):
        from nbt.models.timm_units import fetch_timm_state_dict

        return fetch_timm_state_dict(spec, image_size)
    weights = torchvision_default_weights(spec)
    if weights is None:
        raise UsageError(f"backbone {spec.text} has no library weights; give --weights FILE, or --weights none")
    if _unit_shapes(spec, image_size) != _unit_shapes(
        BackboneSpec(spec.name), default_image_size(BackboneSpec(spec.name))
    ):
        raise UsageError(
            f"backbone {spec.text} has no library weights: they are for {spec.name} without arguments that change "
            "shapes; give --weights FILE, or --weights none"
        )
    from torchvision.models import get_model

    try:
        model: nn.Module = get_model(spec.name, weights=weights, progress=sys.stderr.isatty())
    except Exception as error:  # network failures, proxies and damaged cache files raise errors of many types
        raise NbtError(
            f"the weights of {spec.name} cannot be fetched from {weights.url} ({one_line_message(error)}); "
            f"give --weights FILE or --weights none, or remove a damaged file from {torch.hub.get_dir()}/checkpoints"
        ) from error
    return model.state_dict()


def _unit_shapes(spec: BackboneSpec, image_size: int) -> dict[str, torch.Size]:
    _, parts = build_on_meta_device(spec, image_size)
    return {key: tensor.shape for key, tensor in unit_state_dict(parts).items()}


def _normalisation(spec: BackboneSpec) -> Normalisation:
    """Returns the mean and standard deviation that the library's weights expect; .5 for the encoders."""
    if spec.name in ENCODER_BUILDERS:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if spec.name.startswith(TIMM_PREFIX):
        from nbt.models.timm_units import timm_pretrained_config

        config = timm_pretrained_config(spec)
        return _to_rgb_triple(config.mean), _to_rgb_triple(config.std)
    transforms = torchvision_default_weights(spec).transforms()
    return _to_rgb_triple(transforms.mean), _to_rgb_triple(transforms.std)


def _to_rgb_triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
