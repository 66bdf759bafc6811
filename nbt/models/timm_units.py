"""timm's models as ordered units: chains of their modules, which a dry run determines, and plain vision transformers.

Most convolutional networks of timm and Swin are such chains; see `nbt.models.timm_vision_transformer` for the others.
Positions of models with a fixed image size are interpolated by timm for other image sizes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from nbt.errors import NbtError, UsageError, nearest, one_line_message
from nbt.models.backbone_spec import TIMM_PREFIX, BackboneSpec
from nbt.models.timm_vision_transformer import is_vision_transformer, patch_size, vision_transformer_units
from nbt.models.units import Decomposition, NamedModule, group, has_weights

_FORWARD_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    LookupError,
    NotImplementedError,
    AttributeError,
)


def timm_pretrained_config(spec: BackboneSpec) -> Any:
    """Returns timm's description of a model's pretrained weights, a `timm.models.PretrainedCfg`.

    Raises:
        UsageError: timm has no such model.
    """
    import timm

    name = _timm_model_name(spec)
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def build_timm_model(spec: BackboneSpec, image_size: int, *, pretrained: bool = False) -> nn.Module:
    """Builds a timm model without classifier, in evaluation mode.

    Dropout before the classifier (`drop_rate`) is left to the `Backbone`. In-place activations are made out of place,
    because some blocks begin with one and would modify their input. A model with a fixed image size is built for
    `image_size`, unless its arguments state another one.

    Raises:
        UsageError: timm has no such model, or it cannot be built for this image size.
    """
    import timm

    size = _size_arguments(spec, image_size)
    arguments = {**size, **spec.arguments, "drop_rate": 0.0}
    try:
        model: nn.Module = timm.create_model(_timm_model_name(spec), pretrained=pretrained, num_classes=0, **arguments)
    except _FORWARD_ERRORS as error:
        if not size:
            raise
        raise _refused_size(spec, image_size, one_line_message(error)) from error
    if size and image_size % patch_size(model):
        raise _refused_size(spec, image_size, f"not a multiple of its patches of {patch_size(model)} px")
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model.eval()


def resize_timm_state_dict(
    spec: BackboneSpec, state: dict[str, torch.Tensor], image_size: int
) -> dict[str, torch.Tensor]:
    """Interpolates the positions of a plain vision transformer for another image size than its own, as timm does.

    Args:
        spec: The architecture.
        state: Tensors by name, with further ones such as those of a classifier.
        image_size: Height and width in pixels.

    Returns:
        The state dict; the given one if it is of another model or of another image size than the model's own.
    """
    own = BackboneSpec(spec.name, tuple((name, value) for name, value in spec.kwargs if name != "img_size"))
    size = spec.arguments.get("img_size", image_size)
    if not _size_arguments(own, size):
        return state
    model: Any = build_timm_model(own, timm_pretrained_config(spec).input_size[-1])
    tensors = model.state_dict()
    fits = all(name in state and state[name].shape == tensor.shape for name, tensor in tensors.items())
    if not is_vision_transformer(model) or not fits:
        return state
    model.load_state_dict({name: state[name] for name in tensors})
    model.set_input_size(size)
    return {**state, **model.state_dict()}


def _size_arguments(spec: BackboneSpec, image_size: int) -> dict[str, int]:
    """Returns the argument with which timm builds a model of fixed image size for another one; otherwise nothing."""
    config = timm_pretrained_config(spec)
    fixed = config.fixed_input_size and config.input_size[-1] != image_size
    return {"img_size": image_size} if fixed and "img_size" not in spec.arguments else {}


def _refused_size(spec: BackboneSpec, image_size: int, reason: str) -> UsageError:
    return UsageError(
        f"backbone {spec.text} does not work with images of {image_size} px ({reason}); "
        f"use its default size: --image-size {timm_pretrained_config(spec).input_size[-1]}"
    )


def fetch_timm_state_dict(spec: BackboneSpec, image_size: int) -> dict[str, torch.Tensor]:
    """Downloads timm's pretrained weights; timm interpolates positions for the image size.

    Raises:
        UsageError: timm has no weights of this model.
        NbtError: The weights cannot be downloaded, or do not fit the arguments.
    """
    if not timm_pretrained_config(spec).has_weights:
        raise UsageError(f"backbone {spec.text} has no library weights; give --weights FILE, or --weights none")
    hub = logging.getLogger("huggingface_hub")  # it logs each of its attempts; the error below says all
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        return build_timm_model(spec, image_size, pretrained=True).state_dict()
    except Exception as error:  # the network and the hub's client raise errors of many types
        raise NbtError(
            f"timm's weights of {spec.text} cannot be loaded ({one_line_message(error)}); "
            "give --weights FILE, or --weights none"
        ) from error
    finally:
        hub.setLevel(level)


def decompose_timm_model(spec: BackboneSpec, model: nn.Module, image_size: int) -> Decomposition:
    """Decomposes a model built by `build_timm_model` into units.

    Raises:
        UsageError: The model is neither a chain of its modules nor a plain vision transformer.
    """
    if is_vision_transformer(model):
        units, neck = vision_transformer_units(model, image_size, spec.text)
        return Decomposition(units, neck, _drop_rate(spec), None)
    parts: list[NamedModule] = [(name, model.get_submodule(name)) for name in _find_chain(spec, image_size)]
    end = len(parts)
    while end and not any(True for _ in parts[end - 1][1].parameters()):
        end -= 1
    neck = nn.Sequential(*(module for _, module in parts[end:]))
    return Decomposition(group(parts[:end]), neck, _drop_rate(spec), None)


def _drop_rate(spec: BackboneSpec) -> float:
    rate = spec.arguments.get("drop_rate", 0.0)
    if not isinstance(rate, (int, float)) or not 0.0 <= rate < 1.0:
        raise UsageError(f"backbone {spec.text}: drop_rate {rate!r} is not a share, 0 or more and below 1")
    return float(rate)


def _timm_model_name(spec: BackboneSpec) -> str:
    import timm

    name = spec.name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}; {nearest(name, timm.list_models())}")
    return name


@lru_cache(maxsize=64)
def _find_chain(spec: BackboneSpec, image_size: int) -> tuple[str, ...]:
    """Returns the names of the modules that, run in sequence, reproduce the model's output exactly."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        model = build_timm_model(spec, image_size)
        for parameter in model.parameters():
            # Parameters initialised to 0 or 1 would hide that the chain skips them.
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        images = torch.randn(2, 3, image_size, image_size)
        try:
            names = tuple(name for name, _ in _split_chain("", model, images))
        except UsageError:
            raise
        except _FORWARD_ERRORS as error:
            raise _refused_size(spec, image_size, one_line_message(error)) from error
    if names == ("",):
        raise UsageError(f"backbone {spec.text} cannot be read as ordered units; use another architecture")
    return names


def _split_chain(name: str, module: nn.Module, inputs: Any) -> Iterator[tuple[str, Any]]:
    """Yields the names of a module's links with their outputs; only the module itself if it is a single link."""
    children = [(f"{name}.{child}".lstrip("."), part) for child, part in module.named_children()]
    before = inputs.clone()
    outputs = module(inputs)
    if not torch.equal(inputs, before):
        raise UsageError(f"timm's module {name!r} changes its input in place; use another architecture")
    if _may_split(module, root=not name) and _is_chain(module, children, inputs, outputs):
        for child, part in children:
            for link in _split_chain(child, part, inputs):
                yield link
                inputs = link[1]
    else:
        yield name, outputs


def _may_split(module: nn.Module, *, root: bool) -> bool:
    """Returns whether a module may be split: a stage of blocks, but not a block of layers.

    A plain Sequential may be split if several of its children have weights; any other module if all children with
    weights have children themselves.
    """
    with_weights = [part for part in module.children() if has_weights(part)]
    if root or type(module) is nn.Sequential:
        return root or len(with_weights) > 1
    return bool(with_weights) and all(any(True for _ in part.children()) for part in with_weights)


def _is_chain(module: nn.Module, children: list[NamedModule], hidden: Any, outputs: Any) -> bool:
    """Returns whether the children, run in order on `hidden`, hold all parameters and reproduce the outputs exactly."""
    inside = {id(p) for _, part in children for p in part.parameters()}
    if inside != {id(p) for p in module.parameters()}:
        return False
    try:
        for _, part in children:
            hidden = part(hidden)
        return bool(torch.equal(hidden, outputs))
    except _FORWARD_ERRORS:
        return False
